"""Entries crossed with models, hookpoints, sweep points, parents and seeds."""

from __future__ import annotations

import pytest

TOPK = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"
WITHOUT = "child_controls: false\n"


def test_an_entry_is_crossed_with_everything(planner, fakes):
    header = fakes.header.replace("[layers.2]", "[layers.0, layers.2]")
    header = header.replace("datasets:", "  - {id: other, hookpoints: [layers.0], context: 64}\ndatasets:")
    plan = planner(TOPK, "seeds: {init: [0, 1, 2], data: [0, 5]}\n", header=header)
    assert len(plan.cells) == 3 * 2 * 3 * 2
    seen = {(cell.model.id, cell.model.hookpoint, cell.point, cell.init_seed, cell.data_seed) for cell in plan.cells}
    assert len(seen) == 36
    assert ("other", "blocks.0", "k8", 2, 5) in seen
    assert len({cell.cell_id for cell in plan.cells}) == len({cell.score_id for cell in plan.cells}) == 36
    assert len(plan.cohorts) == 3 * 2
    assert len(plan.groups) == 3 * 2 * 2


def test_a_cell_says_all_about_itself(planner):
    cell = planner(TOPK).cells[1]
    assert (cell.suite, cell.entry, cell.point, cell.where) == ("s", "topk", "k8", "s.yaml:11")
    assert cell.sweep == {"k": 8}
    assert cell.part.config == {"d_sae": 64, "k": 8}
    assert (cell.d_in, cell.d_out, cell.d_sae, cell.expected_l0) == (32, 32, 64, 8)
    assert cell.metrics == {"reconstruction": "3", "sparsity": "1"}
    assert cell.plugins["architecture/topk"] == {"distribution": "fake-dist", "version": "1.2"}
    assert set(cell.plugins) == {"architecture/topk", "dataset/docs", "metric/reconstruction", "metric/sparsity"}
    assert cell.record_name == f"k8-s0-{cell.score_id[:8]}.json"


def test_sweeps_multiply_and_label(planner):
    plan = planner("{name: a, architecture: topk, dataset: docs, sweep: {d_sae: [32, 64], k: [4, 8]}}")
    assert [cell.point for cell in plan.cells] == ["d_sae32-k4", "d_sae32-k8", "d_sae64-k4", "d_sae64-k8"]
    assert (
        planner("{name: a, architecture: topk, dataset: docs, config: {d_sae: 32, k: 1}}").cells[0].point == "default"
    )


def test_train_settings_entry_before_suite_before_architecture(planner):
    entries = """{name: a, architecture: topk, dataset: docs, config: {d_sae: 64, k: 4}}
    {name: b, architecture: topk, dataset: docs, config: {d_sae: 9, k: 4}, train: {lr: auto, batch: 32, clip: null}}"""
    plan = planner(entries, base="train: {batch: 64, lr: 5e-4, decay: 0.5}\nbudget: {tokens: 1000}\n")
    a, b = (cell.train for cell in plan.cells)
    assert (a.batch, a.lr, a.decay, a.warmup, a.clip) == (64, 5e-4, 0.5, 0.05, 1.0)
    assert (b.batch, b.decay, b.clip) == (32, 0.5, None)
    assert b.lr == pytest.approx(1e-3 * (256 / 9) ** 0.5, rel=1e-15)
    assert (a.normalise, a.dtype, a.betas) == ("rms", "float32", (0.9, 0.999))


def test_a_wrapper_is_crossed_with_its_parents_points(planner):
    plan = planner(
        f"{TOPK}\n{{name: ssae, architecture: ssae, dataset: near, init_from: topk, config: {{tilt: 2}}}}",
        "seeds: {init: [0, 1]}\n",
    )
    parents = {cell.cell_id: cell for cell in plan.cells if cell.entry == "topk"}
    children = [cell for cell in plan.cells if cell.entry == "ssae"]
    assert len(children) == 4
    for child in children:
        parent = parents[child.parent]
        assert (parent.point, parent.init_seed) == (child.point, child.init_seed)
        assert child.part.config == {"tilt": 2.0}
        assert child.base == parent.part
        assert child.tags == ("tilted",)
        assert child.sweep == parent.sweep
        assert child.d_sae == 64


def test_a_parent_may_stand_below_its_child_and_be_narrowed(planner):
    plan = planner(
        "{name: s, architecture: ssae, dataset: near, init_from: {entry: topk, at: {k: 8}}, sweep: {tilt: [0.5, 1]}}\n"
        + TOPK,
        WITHOUT,
    )
    assert [(cell.entry, cell.point) for cell in plan.cells] == [
        ("topk", "k4"),
        ("topk", "k8"),
        ("s", "k8-tilt0.5"),
        ("s", "k8-tilt1"),
    ]
    order = [cell.cell_id for cell in plan.cells]
    assert all(cell.parent is None or order.index(cell.parent) < order.index(cell.cell_id) for cell in plan.cells)


def test_a_plain_child_inherits_and_overrides(planner):
    plan = planner(
        f"{TOPK}\n{{name: tuned, architecture: topk, dataset: near, init_from: topk, config: {{k: 2}}}}\n"
        "{name: more, architecture: topk, dataset: near, init_from: topk}",
        WITHOUT,
    )
    tuned = [cell for cell in plan.cells if cell.entry == "tuned"]
    assert [cell.part.config for cell in tuned] == [{"d_sae": 64, "k": 2}] * 2
    assert [cell.point for cell in tuned] == ["default-from-k4", "default-from-k8"]
    assert [cell.part.config["k"] for cell in plan.cells if cell.entry == "more"] == [4, 8]
    assert len({cell.cell_id for cell in plan.cells}) == 6


def test_a_child_of_another_architecture_inherits_the_keys_it_knows(planner):
    plan = planner(
        f"{TOPK}\n{{name: loose, architecture: loose, dataset: docs, init_from: {{entry: topk, at: {{k: 4}}}}}}",
        WITHOUT,
    )
    assert plan.cells[-1].part.config == {"d_sae": 64, "l1": 0.1}


def test_synthetic_entries_have_no_model_and_are_scored_on_their_own(planner):
    plan = planner(
        f"{TOPK}\n{{name: truth, architecture: topk, dataset: truth, config: {{d_sae: 64, k: 4}}}}",
        "evaluation: {datasets: [docs, near]}\n",
    )
    truth = plan.cells[-1]
    assert truth.model is None
    assert (truth.d_in, truth.evaluation.datasets) == (16, ("truth",))
    assert plan.cells[0].evaluation.datasets == ("docs", "near")
    assert [use.name for use in plan.cells[0].evaluation_datasets] == ["docs", "near"]
    assert set(plan.datasets) == {"docs", "near", "truth"}


def test_default_evaluation_is_the_first_entry_on_a_model(planner):
    plan = planner(
        "{name: truth, architecture: topk, dataset: truth, config: {d_sae: 64, k: 4}}\n"
        + TOPK.replace("dataset: docs", "dataset: own")
    )
    assert plan.cells[-1].evaluation.datasets == ("own",)
