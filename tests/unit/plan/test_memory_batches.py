from __future__ import annotations

from types import SimpleNamespace

from saebench.api import Cost
from saebench.plan.grouping.memory_batches import memory_limit, split_by_memory, split_by_parents, waves


def cell(name, parent=None, batch=10):
    return SimpleNamespace(cell_id=name, parent=parent, train=SimpleNamespace(batch=batch))


def names(groups):
    return [[one.cell_id for one in group] for group in groups]


def test_children_wait_for_parents_of_the_same_pass_alone():
    cells = [cell("a"), cell("b", parent="a"), cell("c", parent="elsewhere"), cell("d", parent="b"), cell("e")]
    assert names(split_by_parents(cells)) == [["a", "c", "e"], ["b"], ["d"]]
    assert split_by_parents([]) == []


def price(parameters, workspace=0):
    return Cost(parameters, 0, 0, 0, 0, 0, workspace)


def test_cells_share_memory_up_to_a_limit():
    """Parameters, gradients and moments (16 bytes each) add up; of workspaces only the largest counts."""
    prices = {"a": price(10, 4), "b": price(10, 1), "c": price(10, 4), "d": price(100), "e": None}
    cells = [cell(name) for name in prices]
    split = [names(split_by_memory(cells, lambda one: prices[one.cell_id], limit)) for limit in (10**6, 360, 359)]
    assert split[0] == [["a", "b", "c", "d", "e"]]
    assert split[1] == [["a", "b"], ["c"], ["d"], ["e"]]  # 2 * 160 + 40
    assert split[2] == [["a"], ["b"], ["c"], ["d"], ["e"]]  # one cell over the limit still gets its turn


def test_what_is_trained_already_needs_no_memory_and_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr("saebench.plan.grouping.memory_batches.cost_of", lambda cell, catalog: price(10))
    cells = [cell("a"), cell("b", parent="a")]
    assert names(waves(cells, None, 10**9, trained={"a"})) == [["b"]]
    assert names(waves(cells, None, 10**9)) == [["a"], ["b"]]


def test_the_limit_is_half_of_what_is_free_and_at_most_the_budget_s():
    free = memory_limit("cpu", None)
    assert free > 10**7
    assert memory_limit("cpu", 0.001) == 10**6
