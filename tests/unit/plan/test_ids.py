"""What is in a cell's id, a score's id, a recipe, a cohort's and a group's key; and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

ENTRY = "{name: topk, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}"
SEEDS = "seeds: {init: [0], data: [0], evaluation: [0]}\nevaluation: {datasets: [docs], tokens: 100}\nmetrics: core\n"


@pytest.fixture
def cell(planner, fakes):
    """The only cell of the suite after text replacements and changes of the catalog or model."""

    def make(*changes, catalog=None, facts=None):
        texts = {"header": fakes.header, "entry": ENTRY, "base": fakes.tail, "tail": SEEDS}
        for old, new in changes:
            assert any(old in text for text in texts.values())
            texts = {key: text.replace(old, new) for key, text in texts.items()}
        return planner(
            texts["entry"], texts["tail"], header=texts["header"], base=texts["base"], catalog=catalog, facts=facts
        ).cells[0]

    return make


def test_ids_are_stable_across_runs_and_machines(cell):
    """Golden: when this changes, all stored checkpoints and records lose their names. ENGINE_VERSION goes up."""
    one = cell()
    assert (one.cell_id[:16], one.score_id[:16]) == ("e1c4fe6f3f9b2b25", "fb03bf99bcba3f8c")
    assert one == cell()
    assert len(one.cell_id) == len(one.score_id) == len(one.cohort) == len(one.group) == 64


@pytest.mark.parametrize(
    "change",
    [
        ("k: 4", "k: 5"),
        ("tokens: 1_000", "tokens: 1_001"),
        ("batch: 64", "batch: 32"),
        ("batch: 64", "batch: 64, lr: 1e-3"),
        ("batch: 64", "batch: 64, eps: 1e-7"),
        ("batch: 64", "batch: 64, betas: [0.8, 0.9]"),
        ("batch: 64", "batch: 64, clip: null"),
        ("batch: 64", "batch: 64, warmup: 0.1"),
        ("batch: 64", "batch: 64, decay: 0.1"),
        ("batch: 64", "batch: 64, normalise: none"),
        ("metrics: core", "metrics: core\nactivations: {dtype: float16}"),
        ("metrics: core", "metrics: core\nactivations: {shuffle: 1_000}"),
        ("layers.2", "layers.0"),
        ("context: 128", "context: 64"),
        ("id: docs-lm", "id: other"),
        ("tokens: 400", "tokens: 401"),
        ("init: [0]", "init: [1]"),
        ("data: [0]", "data: [1]"),
    ],
)
def test_what_decides_the_weights_changes_the_cell(cell, change):
    assert cell(change).cell_id != cell().cell_id
    assert cell(change).score_id != cell().score_id


def test_how_data_is_made_decides_every_id_from_its_second_version_on(cell, monkeypatch):
    before = cell()
    monkeypatch.setattr("saebench.plan.grouping.cells.DATA_VERSION", 1)
    assert cell() == before
    monkeypatch.setattr("saebench.plan.grouping.cells.DATA_VERSION", 2)
    after = cell()
    for name in ("cell_id", "score_id", "cohort", "group"):
        assert getattr(after, name) != getattr(before, name)


@pytest.mark.parametrize(
    "change",
    [
        ("tokens: 100", "tokens: 101"),
        ("evaluation: [0]", "evaluation: [0, 1]"),
        ("[docs]", "[docs, near]"),
        ("metrics: core", "metrics: extended"),
    ],
)
def test_what_decides_the_score_changes_the_score_alone(cell, change):
    changed, same = cell(change), cell()
    assert changed.cell_id == same.cell_id
    assert changed.score_id != same.score_id


@pytest.mark.parametrize(
    "change",
    [
        ("name: topk", "name: renamed"),
        ("name: s\n", "name: other\n"),
        ("{d_sae: 64, k: 4}", "{k: 4, d_sae: 64}"),
        ("  docs: {plugin", "  docs: {version: '1', plugin"),
        ("metrics: core", "metrics: core\nactivations: {source: live}"),
        ("metrics: core", "metrics: core\nactivations: {build: parallel, prefetch: 2, quota_gb: 3}"),
    ],
)
def test_names_and_layout_change_nothing(cell, change):
    assert cell(change).cell_id == cell().cell_id
    assert cell(change).score_id == cell().score_id


def test_spec_versions_count_and_package_versions_do_not(cell, fakes):
    same = cell()
    for table, name in (("architectures", "topk"), ("datasets", "faithful")):
        catalog = fakes.catalog()
        registered = getattr(catalog, table)[name]
        getattr(catalog, table)[name] = replace(registered, version="9.9")
        assert cell(catalog=catalog).cell_id == same.cell_id
        getattr(catalog, table)[name] = replace(registered, spec=replace(registered.spec, version="7"))
        assert cell(catalog=catalog).cell_id != same.cell_id
    catalog = fakes.catalog()
    registered = catalog.metrics["sparsity"]
    catalog.metrics["sparsity"] = replace(registered, spec=replace(registered.spec, version="7"))
    assert cell(catalog=catalog).cell_id == same.cell_id
    assert cell(catalog=catalog).score_id != same.score_id


def test_what_a_dataset_says_of_its_files_is_in_its_recipe(planner, fakes):
    entry = ENTRY.replace("dataset: own", "dataset: near")
    catalog = fakes.catalog()
    registered = catalog.datasets["docs"]
    catalog.datasets["docs"] = replace(
        registered, spec=replace(registered.spec, recipe=lambda options: {"packages": ["a 1.1"]})
    )
    before, after = planner(entry), planner(entry, catalog=catalog)
    assert before.datasets["docs"].recipe != after.datasets["docs"].recipe
    assert before.datasets["near"].recipe != after.datasets["near"].recipe  # it reads docs
    assert before.cells[0].cell_id != after.cells[0].cell_id


def test_text_has_one_recipe_for_all_models_and_samples_have_one_each(planner, fakes):
    header = fakes.header.replace("datasets:", "  - {id: other, hookpoints: [layers.0], context: 64}\ndatasets:")
    plan = planner(f"{ENTRY}\n{ENTRY.replace('topk,', 'text,', 1).replace('own', 'docs')}", header=header)
    recipes = {
        name: {cell.dataset.recipe for cell in plan.cells if cell.dataset.name == name} for name in ("docs", "own")
    }
    assert len(recipes["docs"]) == 1
    assert len(recipes["own"]) == 2


def test_cohorts_share_activations_and_groups_share_all_but_the_init_seed(planner):
    entries = """{name: a, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}
    {name: b, architecture: loose, dataset: docs, config: {d_sae: 32}}
    {name: c, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}, train: {batch: 32}}"""
    plan = planner(entries, "seeds: {init: [0, 1], data: [0, 1]}\n")
    assert len(plan.cohorts) == 4
    by_key = {cohort.key: cohort for cohort in plan.cohorts}
    for cell in plan.cells:
        assert cell.cell_id in by_key[cell.cohort].cells
        assert by_key[cell.cohort].batch == cell.train.batch
    assert [len(group.cells) for group in plan.groups] == [2] * 8
    for group in plan.groups:
        members = [plan.cell(cell_id) for cell_id in group.cells]
        assert {cell.init_seed for cell in members} == {0, 1}
        assert len({(cell.entry, cell.point, cell.data_seed) for cell in members}) == 1
        assert group.name == f"{members[0].point}-{group.key[:8]}"
        assert group.metrics == {"stability": "1"}


def test_children_of_different_seeds_form_one_group(planner):
    entries = f"{ENTRY}\n{{name: child, architecture: ssae, dataset: docs, init_from: topk}}"
    plan = planner(entries, "seeds: {init: [0, 1, 2]}\n")
    assert [(group.entry, len(group.cells)) for group in plan.groups] == [("topk", 3), ("child", 3)]


def test_cohorts_come_in_an_order_that_parents_allow(planner):
    entries = f"""{{name: child, architecture: ssae, dataset: docs, init_from: topk}}
    {{name: other, architecture: topk, dataset: docs, config: {{d_sae: 32, k: 4}}}}
    {ENTRY}"""
    plan = planner(entries)
    assert [cohort.dataset.name for cohort in plan.cohorts] == ["own", "docs"]
    assert plan.cohorts[1].after == (plan.cohorts[0].key,)
    assert [cell for cohort in plan.cohorts for cell in cohort.cells] == [cell.cell_id for cell in plan.cells]


def test_back_and_forth_between_datasets_cuts_a_cohort_in_stages(planner):
    entries = """{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}
    {name: b, architecture: topk, dataset: own, init_from: a}
    {name: c, architecture: topk, dataset: docs, init_from: b}"""
    plan = planner(entries, "child_controls: false\n")
    assert [cell.entry for cell in plan.cells] == ["a", "b", "c"]
    assert [cohort.dataset.name for cohort in plan.cohorts] == ["docs", "own", "docs"]
    assert len({cohort.key for cohort in plan.cohorts}) == 3
    assert plan.cohorts[2].after == (plan.cohorts[1].key,)
    assert all(
        cell.cell_id in next(cohort for cohort in plan.cohorts if cohort.key == cell.cohort).cells
        for cell in plan.cells
    )


def test_a_list_of_metrics_takes_the_specs_that_give_them(planner):
    plan = planner(ENTRY, "metrics: [oddness, sfr]\n")
    assert plan.cells[0].metrics == {"odd": "1"}
    assert plan.groups[0].metrics == {"stability": "1"}
    assert planner(ENTRY, "metrics: extended\n").cells[0].metrics == {
        "odd": "1",
        "reconstruction": "3",
        "sparsity": "1",
    }


def test_labels_of_a_plan_differ_and_are_short_where_that_is_enough(planner, fakes):
    one = planner(ENTRY, "seeds: {init: [0, 1]}\ncontrols: true\n")
    assert {cell.label for cell in one.cells if not cell.control} == {"topk default s0", "topk default s1"}
    places = fakes.header.replace("[layers.2]", "[layers.0, layers.2]")
    places = places.replace("datasets:", "  - {id: somewhere/other, hookpoints: [layers.0], context: 128}\ndatasets:")
    facts = fakes.Facts({"docs-lm": fakes.Model(), "somewhere/other": fakes.Model("other-digest")})
    plan = planner(ENTRY, "seeds: {data: [0, 1]}\ncontrols: true\n", header=places, facts=facts)
    labels = [cell.label for cell in plan.cells]
    assert len(set(labels)) == len(labels)
    assert "topk default docs-lm layers.0 d1 s0" in labels
    assert "topk default other layers.0 d0 s0" in labels


def test_labels_of_controls_on_vectors_name_their_dataset(planner, fakes):
    header = fakes.header + "  more: {plugin: synthetic, d_in: 16, n_features: 32}\n"
    entry = "{name: NAME, architecture: topk, dataset: NAME, config: {d_sae: 8, k: 2}}"
    plan = planner(
        f"{entry.replace('NAME', 'truth')}\n{entry.replace('NAME', 'more')}", "controls: true\n", header=header
    )
    labels = [cell.label for cell in plan.cells]
    assert len(set(labels)) == len(labels)
    assert {"control-pca d_sae8-k2 truth s0", "control-pca d_sae8-k2 more s0", "truth default s0"} < set(labels)
