"""A child's control: its parent, trained on by the same spend with the same data as before."""

from __future__ import annotations

import pytest

TOPK = "{name: topk, architecture: topk, dataset: docs, config: {d_sae: 64}, sweep: {k: [4, 8]}}"
SSAE = "{name: ssae, architecture: ssae, dataset: near, init_from: topk}"
SEEDS = "seeds: {init: [3, 4], data: [5, 6]}\n"


def continued(plan):
    return [cell for cell in plan.cells if cell.continued]


def test_every_child_cell_has_one(planner):
    plan = planner(f"{TOPK}\n{SSAE}", SEEDS)
    children = [cell for cell in plan.cells if cell.entry == "ssae"]
    controls = {(cell.point, cell.init_seed, cell.data_seed): cell for cell in continued(plan)}
    assert len(children) == len(controls) == 8
    for child in children:
        control, parent = controls[child.point, child.init_seed, child.data_seed], plan.cell(child.parent)
        assert (control.entry, control.control, control.trains) == ("topk-continued", True, True)
        assert (control.parent, control.part, control.base) == (parent.cell_id, parent.part, None)
        assert control.dataset == parent.dataset  # not the child's
        assert (control.tokens, control.train, control.evaluation) == (child.tokens, child.train, child.evaluation)
        assert control.cohort == parent.cohort or control.train.batch != parent.train.batch
    assert not {cell.cell_id for cell in continued(plan)} & {cell for group in plan.groups for cell in group.cells}


def test_its_cost_is_in_the_forecast_and_a_suite_may_leave_it_out(planner):
    with_controls, without = planner(f"{TOPK}\n{SSAE}"), planner(f"{TOPK}\n{SSAE}", "child_controls: false\n")
    assert not continued(without)
    more = with_controls.estimate.train_tokens - without.estimate.train_tokens
    assert more == 2 * 1024
    control = continued(with_controls)[0]
    parent = with_controls.estimate.cells[control.parent]
    found = with_controls.estimate.cells[control.cell_id]
    assert found.train_flops == parent.train_flops
    assert found.all_tokens == 1024 + parent.all_tokens
    assert not planner(TOPK, "controls: true\n").cells[-1].continued


def test_children_of_equal_spend_share_one_and_others_do_not(planner):
    tilts = SSAE.replace("init_from: topk", "init_from: topk, sweep: {tilt: [0.5, 1, 2]}")
    assert len(continued(planner(f"{TOPK}\n{tilts}"))) == 2
    twice = SSAE.replace("name: ssae", "name: other, train: {batch: 32}")
    plan = planner(f"{TOPK}\n{SSAE}\n{twice}")
    assert sorted(cell.point for cell in continued(plan)) == [
        "k4-as-other", "k4-as-ssae", "k8-as-other", "k8-as-ssae",
    ]  # fmt: skip


def test_only_a_child_comes_with_its_parent_and_its_control(planner):
    other = "{name: other, architecture: topk, dataset: docs, config: {d_sae: 64, k: 2}}"
    plan = planner(f"{TOPK}\n{SSAE}\n{other}\n{SSAE.replace('name: ssae', 'name: more').replace('topk}', 'other}')}")
    assert {cell.entry for cell in plan.cells_of("ssae")} == {"topk", "ssae", "topk-continued"}
    assert {cell.entry for cell in plan.cells_of("topk")} == {"topk"}
    assert {cell.entry for cell in plan.cells_of("topk-continued")} == {"topk", "topk-continued"}


def test_a_parent_that_an_entry_trains_on_needs_no_other(planner):
    plain = "{name: more, architecture: topk, dataset: docs, init_from: topk}"
    assert not continued(planner(f"{TOPK}\n{plain}"))  # it is its own control
    plan = planner(f"{TOPK}\n{plain}\n{SSAE}")
    kept = {cell.train for cell in plan.cells if cell.entry == "more"} == {
        cell.train for cell in plan.cells if cell.entry == "ssae"
    }
    assert bool(continued(plan)) != kept
    assert any("trained on" in warning for warning in plan.warnings) == kept


def test_a_taken_name_is_told(planner):
    named = TOPK.replace("name: topk", "name: topk-continued").replace("[4, 8]", "[2, 3]")
    plan = planner(f"{TOPK}\n{named}\n{SSAE}")
    assert not continued(plan)
    assert "topk-continued is left out: an entry has this name." in plan.warnings


@pytest.mark.parametrize(("primary", "amount"), [("tokens", 1000), ("flops", 10**7)])
def test_it_spends_as_much_as_its_child(planner, primary, amount):
    plan = planner(
        f"{TOPK}\n{SSAE}", base=f"budget: {{primary: {primary}, {primary}: {amount}}}\ntrain: {{batch: 64}}\n"
    )
    (control,) = [cell for cell in continued(plan) if cell.sweep["k"] == 4]
    (child,) = [cell for cell in plan.cells if cell.entry == "ssae" and cell.sweep["k"] == 4]
    if primary == "tokens":
        assert control.tokens == child.tokens
    else:
        spent = [plan.estimate.cells[cell.cell_id].train_flops for cell in (child, control)]
        step = spent[1] / (control.tokens // control.train.batch)
        assert 0 <= spent[0] - spent[1] < step
