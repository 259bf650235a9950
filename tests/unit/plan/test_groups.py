from __future__ import annotations

from dataclasses import replace

import pytest

from saebench.api import CellMetricSpec, GroupMetricSpec, MetricInfo
from saebench.host import Registered
from saebench.plan.forecast.rates import ASSUMED_FLOPS_PER_S, ASSUMED_SCORE_TOKEN_S
from saebench.plan.grouping.groups import GROUP_TOKENS, member_label
from saebench.plan.print import print_plan

DOCS = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"
OWN = "{name: own, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}"
SEEDS = "seeds: {init: [0, 1]}\n"


def spec(name, *vary, **more):
    info = MetricInfo(f"{name}-id", "fraction", "higher", "stability", "made up")
    return GroupMetricSpec(name, "1", (info,), "none:none", frozenset(vary), core=True, **more)


@pytest.fixture
def grouped(planner, fakes):
    """`grouped(entries, *aspects, ...)` -> plan and its groups that vary these aspects."""

    def plan(entries, *vary, tail=SEEDS, more=(), **options):
        catalog = fakes.catalog()
        del catalog.metrics["across-data"]
        for extra in (spec("mine", *vary), *more):
            catalog.metrics[extra.name] = Registered(extra, "fake-dist", "1.2", "fake")
        made = planner(entries, tail, catalog=catalog, **options)
        return made, [group for group in made.groups if set(group.vary) == set(vary)]

    return plan


def labels(plan, group):
    return [member_label(plan.cell(cell_id), group.vary) for cell_id in group.cells]


def test_entries_that_differ_in_their_dataset_alone_form_a_group(grouped):
    plan, groups = grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset")
    (group,) = groups
    assert sorted(labels(plan, group)) == ["docs s0", "docs s1", "own s0", "own s1"]
    assert group.vary == ("dataset", "init_seed")
    assert set(group.entry.split(" + ")) == {"topk", "own"}
    assert group.point == "k4"  # the entry without a sweep calls it `default`
    assert group.folder == "across-dataset"
    assert group.name == f"topk-k4-{group.key[:8]}"
    assert group.metrics == {"mine": "1"}
    assert {plan.cell(cell_id).part.config["k"] for cell_id in group.cells} == {4}


def test_groups_of_seeds_stay_as_they_are_beside_them(grouped, planner):
    plan, _ = grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset")
    alone = [group for group in plan.groups if group.vary == ("init_seed",)]
    assert plan.groups[: len(alone)] == tuple(alone)
    assert [group.folder for group in alone] == ["topk", "topk", "own"]
    for group in alone:
        cells = [plan.cell(cell_id) for cell_id in group.cells]
        assert {cell.group for cell in cells} == {group.key}
        assert group.name == f"{cells[0].point}-{group.key[:8]}"
        assert group.metrics == {"stability": "1"}
        assert labels(plan, group) == ["s0", "s1"]


@pytest.mark.parametrize(
    "other",
    [
        OWN.replace("k: 4", "k: 5"),
        OWN.replace("d_sae: 64", "d_sae: 32"),
        OWN.replace("architecture: topk", "architecture: fresh"),
        OWN.replace("config", "train: {batch: 32}, config"),
        OWN.replace("own, config", "truth, config"),
    ],
)
def test_more_than_the_dataset_is_another_thing(grouped, other):
    assert grouped(f"{DOCS}\n{other}", "init_seed", "dataset")[1] == []


def test_unequal_allotments_form_no_group(grouped):
    counts = "train: {batch: 64}\nbudget: {primary: tokens, tokens: 1_000, counts: all}\n"
    assert len(grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset")[1]) == 1
    assert grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset", base=counts)[1] == []


def test_one_dataset_alone_forms_no_group_over_datasets(grouped):
    assert grouped(DOCS, "init_seed", "dataset")[1] == []
    assert grouped(DOCS, "dataset")[1] == []
    assert len(grouped(DOCS, "data_seed", tail="seeds: {init: [0, 1], data: [0, 3]}\n")[1]) == 2 * 2


def test_the_dataset_alone_leaves_a_group_a_seed(grouped):
    plan, groups = grouped(f"{DOCS}\n{OWN}", "dataset")
    assert [labels(plan, group) for group in groups] == [["docs", "own"]] * 2
    assert len({group.key for group in groups}) == 2


def test_data_without_a_model_is_scored_on_its_own_and_meets_no_other(grouped, fakes):
    header = fakes.header + "  other: {plugin: synthetic, n_features: 32}\n"
    entries = """{name: a, architecture: topk, dataset: truth, config: {d_sae: 64, k: 4}}
    {name: b, architecture: topk, dataset: other, config: {d_sae: 64, k: 4}}"""
    plan, groups = grouped(entries, "init_seed", "dataset", header=header)
    assert groups == []
    assert [cell.dataset.name for cell in plan.cells] == ["truth", "truth", "other", "other"]


def test_hookpoints_data_seeds_and_entries(grouped, fakes):
    header = fakes.header.replace("[layers.2]", "[layers.0, layers.2]")
    plan, groups = grouped(DOCS, "hookpoint", header=header)
    assert [labels(plan, group) for group in groups] == [["layers.0", "layers.2"]] * 4
    assert {group.folder for group in groups} == {"across-hookpoint"}
    plan, groups = grouped(DOCS, "data_seed", "init_seed", tail="seeds: {init: [0, 1], data: [0, 3]}\n")
    assert sorted(labels(plan, groups[0])) == ["d0 s0", "d0 s1", "d3 s0", "d3 s1"]
    entries = (
        f"{DOCS}\n{{name: other, architecture: fresh, dataset: docs, config: {{d_sae: 32}}, sweep: {{k: [4, 8]}}}}"
    )
    plan, groups = grouped(entries, "entry", "init_seed")
    assert [sorted(labels(plan, group)) for group in groups] == [["other s0", "other s1", "topk s0", "topk s1"]] * 2
    assert [group.name.rpartition("-")[0] for group in groups] == ["several-k4", "several-k8"]


def test_children_join_where_their_parents_do(grouped):
    entries = f"""{DOCS.replace("sweep: {k: [4, 8]}", "").replace("64}", "64, k: 4}")}
    {OWN}
    {{name: a, architecture: ssae, dataset: docs, init_from: topk}}
    {{name: b, architecture: ssae, dataset: own, init_from: own}}"""
    _, groups = grouped(entries, "init_seed", "dataset")
    assert [set(group.entry.split(" + ")) for group in groups] == [{"topk", "own"}, {"a", "b"}]


def test_children_of_one_dataset_with_parents_of_two_stand_apart(grouped):
    entries = f"""{DOCS.replace("sweep: {k: [4, 8]}", "").replace("64}", "64, k: 4}")}
    {OWN}
    {{name: dd, architecture: ssae, dataset: docs, init_from: topk}}
    {{name: do, architecture: ssae, dataset: docs, init_from: own}}
    {{name: oo, architecture: ssae, dataset: own, init_from: own}}"""
    plan, groups = grouped(entries, "init_seed", "dataset")
    entries = {frozenset(group.entry.split(" + ")) for group in groups}
    assert entries == {frozenset({"topk", "own"}), frozenset({"dd", "oo"})}
    for group in groups:
        assert len(set(labels(plan, group))) == len(group.cells)


def test_two_specs_over_the_same_aspects_share_groups_and_others_have_their_own(grouped):
    more = (spec("second", "dataset", "init_seed"), spec("third", "dataset"))
    plan, groups = grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset", more=more)
    assert [group.metrics for group in groups] == [{"mine": "1", "second": "1"}]
    assert [group.metrics for group in plan.groups if group.vary == ("dataset",)] == [{"third": "1"}] * 2
    names = [(group.suite, group.folder, group.name) for group in plan.groups]
    assert len(set(names)) == len(names)


def test_controls_form_no_group(grouped):
    plan, _ = grouped(f"{DOCS}\n{OWN}", "entry", "dataset", tail=SEEDS + "controls: true\n")
    controls = {cell.cell_id for cell in plan.cells if cell.control}
    assert controls
    assert not controls & {cell_id for group in plan.groups for cell_id in group.cells}


def test_a_metric_that_varies_what_cannot_be_varied_is_refused(refused, fakes):
    catalog = fakes.catalog()
    for name, vary in (("odd", ("weather",)), ("none", ())):
        catalog.metrics["mine"] = Registered(spec(name, *vary), "fake-dist", "1.2", "fake")
        (line,) = refused(DOCS, catalog=catalog)
        found = "weather" if vary else "nothing"
        assert line.startswith(f"group metric '{name}' varies {found}; allowed are data_seed, dataset,")


def test_specs_without_ids_come_along_with_group_metrics_alone(planner, fakes):
    catalog = fakes.catalog()
    arrays = CellMetricSpec("arrays", "1", (), "none:none", ("eval",), core=True)
    catalog.metrics["arrays"] = Registered(arrays, "fake-dist", "1.2", "fake")
    assert set(planner(DOCS, "metrics: [fvu, sfr]\n", catalog=catalog).cells[0].metrics) == {"reconstruction", "arrays"}
    assert set(planner(DOCS, "metrics: [fvu]\n", catalog=catalog).cells[0].metrics) == {"reconstruction"}
    assert "arrays" in planner(DOCS, catalog=catalog).cells[0].metrics
    catalog.metrics["arrays"] = Registered(replace(arrays, core=False), "fake-dist", "1.2", "fake")
    assert "arrays" not in planner(DOCS, "metrics: [fvu, sfr]\n", catalog=catalog).cells[0].metrics


def test_estimates_count_pairs_and_what_members_read(grouped):
    evaluation = SEEDS + "evaluation: {datasets: [docs], tokens: 200_000, density_tokens: 100, loss_tokens: 10}\n"
    entries = f"{DOCS}\n{OWN}"

    def scoring(*more):
        return grouped(entries, "hookpoint", tail=evaluation, more=more)[0].estimate.scoring_s

    square = 5e-8 * 64**2
    # 4 members; beside each pair ten of random directions and five of untrained samples
    plain, pairs = scoring(), 6 * (0.15 + square + 15 * (0.02 + square))
    assert scoring(spec("second", "dataset", "init_seed")) - plain == pytest.approx(pairs, abs=1.1e-3)
    streamed = scoring(spec("second", "dataset", "init_seed", streams=True)) - plain
    read = 4 * GROUP_TOKENS * (ASSUMED_SCORE_TOKEN_S + 2 * 32 * 64 / ASSUMED_FLOPS_PER_S)
    assert streamed == pytest.approx(pairs + read, abs=1.1e-3)
    assert read > 0.1


def test_the_page_of_a_plan_counts_them(grouped):
    assert print_plan(grouped(DOCS, "init_seed", "dataset")[0]).splitlines()[0].endswith(", 2 groups")
    plan, _ = grouped(f"{DOCS}\n{OWN}", "init_seed", "dataset")
    assert print_plan(plan).splitlines()[0].endswith(", 4 groups (1 across datasets)")
