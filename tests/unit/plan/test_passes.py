"""Which cohorts are read together."""

from __future__ import annotations

from dataclasses import replace

from saebench.plan.grouping.passes import form_passes

HEADER = """\
schema: 1
name: s
models:
  - {id: docs-lm, hookpoints: [layers.0, layers.2], context: 128}
datasets:
  docs: {plugin: docs}
  own: {plugin: faithful, tokens: 400}
  near: {plugin: subdomain, base: docs}
  truth: {plugin: synthetic}
"""


def names(plan, passes):
    return [
        sorted(f"{cohort.dataset.name} {cohort.model.hookpoint_name if cohort.model else '-'}" for cohort in members)
        for members in passes
    ]


def test_hookpoints_of_one_model_share_a_pass(planner):
    plan = planner(
        """{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}
           {name: b, architecture: topk, dataset: own, config: {d_sae: 64, k: 4}}
           {name: c, architecture: ssae, dataset: near, init_from: a}
           {name: t, architecture: topk, dataset: truth, config: {d_sae: 64, k: 4}}""",
        "seeds: {data: [0, 1]}\n",
        header=HEADER,
    )
    passes = form_passes(plan.cohorts)
    assert [name for name in names(plan, passes) if name[0].startswith("docs")] == [
        ["docs layers.0", "docs layers.2"]
    ] * 2
    assert [name for name in names(plan, passes) if name[0].startswith("truth")] == [["truth -"]] * 2
    assert sum(len(members) for members in passes) == len(plan.cohorts)
    done: set[str] = set()
    for members in passes:
        assert all(set(cohort.after) <= done for cohort in members)
        done |= {cohort.key for cohort in members}


def test_what_waits_for_another_does_not_join_it(planner):
    plan = planner("{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}", header=HEADER)
    first, second = plan.cohorts
    assert len(form_passes([first, second])) == 1
    assert len(form_passes([first, replace(second, after=(first.key,))])) == 2
    # through a third, too
    third = replace(first, key="third", after=(first.key,), dataset=replace(first.dataset, recipe="other"))
    assert [len(members) for members in form_passes([first, third, replace(second, after=("third",))])] == [1, 1, 1]


def test_another_batch_precision_or_shuffle_is_another_pass(planner):
    plan = planner("{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}", header=HEADER)
    first, second = plan.cohorts
    for change in ({"batch": 32}, {"dtype": "float16"}, {"shuffle": 9}, {"data_seed": 5}):
        assert len(form_passes([first, replace(second, **change)])) == 2
    assert len(form_passes([first, replace(first, key="twin")])) == 2, "one hookpoint twice in one forward"
