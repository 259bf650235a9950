"""What the plan makes of the suite's `activations` block."""

from __future__ import annotations

ENTRIES = """
{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}
{name: b, architecture: topk, dataset: truth, config: {d_sae: 64, k: 4}}
"""


def test_cohorts_carry_it(planner):
    plan = planner(
        ENTRIES,
        "activations: {source: live, dtype: bfloat16, shuffle: 128, build: parallel, prefetch: 3, quota_gb: 2}\n",
    )
    assert len(plan.cohorts) == 2
    for cohort in plan.cohorts:
        use = cohort.activations
        assert (use.source, use.build, use.prefetch, use.quota_gb) == ("live", "parallel", 3, 2.0)
        assert (cohort.dtype, cohort.shuffle) == ("bfloat16", 128)
        members = [plan.cell(cell_id) for cell_id in cohort.cells]
        assert {cell.train.dtype for cell in members} == {"bfloat16"}
        assert {cell.train.shuffle for cell in members} == {128}
        assert {cell.d_in for cell in members} == {cohort.d_in}
    assert len({cohort.d_in for cohort in plan.cohorts}) == 2


def test_how_rows_arrive_changes_no_cohort(planner):
    plain = planner(ENTRIES)
    assert plain.cohorts[0].activations.prefetch is None
    other = planner(ENTRIES, "activations: {source: live, build: parallel, prefetch: 1}\n")
    assert [cohort.key for cohort in plain.cohorts] == [cohort.key for cohort in other.cohorts]
    shuffled = planner(ENTRIES, "activations: {shuffle: 77}\n")
    assert {cohort.key for cohort in plain.cohorts}.isdisjoint(cohort.key for cohort in shuffled.cohorts)
