"""Floor and ceiling rows."""

from __future__ import annotations

ENTRIES = """{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}
{name: wide, architecture: topk, dataset: own, config: {d_sae: 128, k: 6}}
{name: twin, architecture: topk, dataset: own, config: {d_sae: 64, k: 2}}
{name: truth, architecture: topk, dataset: truth, config: {d_sae: 64, k: 3}}"""
TAIL = "controls: true\nseeds: {init: [3, 4], data: [5, 6]}\n"


def test_one_set_for_each_site_and_width_and_one_identity_for_each_site(planner):
    plan = planner(ENTRIES, TAIL)
    controls = [cell for cell in plan.cells if cell.control]
    rows = sorted((cell.entry, cell.dataset.name, cell.point) for cell in controls)
    sets = [("docs", "d_sae64-k4"), ("own", "d_sae128-k6"), ("truth", "d_sae64-k3")]
    # PCA has no more components than dimensions
    components = [("docs", "d_sae32-k4"), ("own", "d_sae32-k6"), ("truth", "d_sae16-k3")]
    assert rows == sorted(
        [(name, *where) for where in sets for name in ("control-permuted", "control-random")]
        + [("control-pca", *where) for where in components]
        + [("control-identity", "docs", "d_sae32"), ("control-identity", "truth", "d_sae16")]
    )


def test_controls_are_like_the_cell_they_stand_beside(planner):
    plan = planner(ENTRIES, TAIL)
    reference = next(
        cell for cell in plan.cells if (cell.entry, cell.point, cell.init_seed, cell.data_seed) == ("topk", "k4", 3, 5)
    )
    for cell in (cell for cell in plan.cells if cell.control and cell.dataset.name == "docs"):
        assert (cell.init_seed, cell.data_seed, cell.cohort, cell.train, cell.tokens) == (
            3,
            5,
            reference.cohort,
            reference.train,
            reference.tokens,
        )
        assert cell.evaluation == reference.evaluation
        assert "control" in cell.tags
        assert cell.sweep == {}
        if cell.entry == "control-permuted":
            assert cell.parent == reference.cell_id
            assert cell.base == reference.part
        else:
            assert cell.parent is None
        expected = {"control-identity": {"d_sae": 32}, "control-pca": {"d_sae": 32, "k": 4}}
        assert cell.part.config == expected.get(cell.entry, {"d_sae": 64, "k": 4})


def test_controls_form_no_groups_and_spend_no_budget(planner):
    with_controls, without = planner(ENTRIES, TAIL), planner(ENTRIES, TAIL.replace("true", "false"))
    assert not any(cell.control for cell in without.cells)
    assert [group.key for group in with_controls.groups] == [group.key for group in without.groups]
    assert with_controls.estimate.train_tokens == without.estimate.train_tokens
    assert [cohort.key for cohort in with_controls.cohorts] == [cohort.key for cohort in without.cohorts]


def test_without_an_l0_to_compare_at_sparse_controls_are_left_out(planner):
    plan = planner("{name: loose, architecture: loose, dataset: docs, config: {d_sae: 64}}", TAIL)
    assert [cell.entry for cell in plan.cells if cell.control] == ["control-identity"]
    assert sum("is left out" in warning for warning in plan.warnings) == 3


def test_a_wrapper_listed_first_is_no_reference(planner):
    plan = planner(
        "{name: child, architecture: ssae, dataset: near, init_from: topk}\n" + ENTRIES.splitlines()[0], TAIL
    )
    permuted = next(cell for cell in plan.cells if cell.entry == "control-permuted")
    assert permuted.base.architecture == "topk"
    assert plan.cell(permuted.parent).entry == "topk"


def test_a_catalog_without_controls_says_so(planner, fakes):
    catalog = fakes.catalog()
    del catalog.architectures["control-pca"]
    plan = planner(ENTRIES, TAIL, catalog=catalog)
    assert not any(cell.entry == "control-pca" for cell in plan.cells)
    assert any(
        warning.startswith("control-pca at layers.2, d_sae 64 is left out")
        and "no architecture named 'control-pca'" in warning
        for warning in plan.warnings
    )
