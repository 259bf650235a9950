from __future__ import annotations

from types import SimpleNamespace

from saebench.api import Cost
from saebench.plan.grouping.memory_batches import memory_batches, memory_limit, memory_together


def cell(name, parent=None, batch=10, control=False):
    return SimpleNamespace(cell_id=name, parent=parent, train=SimpleNamespace(batch=batch), trains=not control)


def names(groups):
    return [[one.cell_id for one in group] for group in groups]


def free(_):
    return None


def test_children_wait_for_parents_of_the_same_pass_alone():
    cells = [cell("a"), cell("b", parent="a"), cell("c", parent="elsewhere"), cell("d", parent="b"), cell("e")]
    assert names(memory_batches(cells, free, None)) == [["a", "c", "e"], ["b"], ["d"]]
    assert memory_batches([], free, None) == []


def price(parameters, workspace=0, fixed=0):
    return Cost(parameters, 4 * parameters, 0, 0, 0, 0, workspace, workspace_bytes=fixed)


def test_cells_share_memory_up_to_a_limit():
    """Parameters, gradients and moments (16 bytes each) add up; of workspaces only the largest counts."""
    prices = {"a": price(10, 4), "b": price(10, 1), "c": price(10, 4), "d": price(100), "e": None}
    cells = [cell(name) for name in prices]

    def cost(one):
        return prices[one.cell_id]

    split = [names(memory_batches(cells, cost, limit)) for limit in (10**6, 360, 359)]
    assert split[0] == [["a", "b", "c", "d", "e"]]
    assert split[1] == [["a", "b"], ["c"], ["d"], ["e"]]  # 2 * 160 + 40
    assert split[2] == [["a"], ["b"], ["c"], ["d"], ["e"]]  # one cell over the limit is trained all the same
    assert [memory_together(cells[:n], cost) for n in (1, 2, 5)] == [200, 360, 2120]


def test_workspace_that_does_not_grow_with_the_batch_counts_once():
    cells = [cell("a"), cell("b")]
    assert memory_together(cells, lambda one: price(10, 4, fixed=1000)) == 2 * 160 + 40 + 1000
    assert names(memory_batches(cells, lambda one: price(10, 4, fixed=1000), 1360)) == [["a", "b"]]


def test_a_control_holds_weights_alone():
    assert memory_together([cell("a"), cell("b", control=True)], lambda one: price(10)) == 160 + 40


def test_what_is_trained_already_needs_no_memory_and_no_child_waits_for_it():
    cells = [cell("a"), cell("b", parent="a")]
    assert names(memory_batches(cells, lambda one: price(10), 10**9, trained={"a"})) == [["b"]]
    assert names(memory_batches(cells, lambda one: price(10), 10**9)) == [["a"], ["b"]]


def test_the_limit_is_half_of_what_is_free_and_at_most_the_budget_s():
    free = memory_limit("cpu", None)
    assert free > 10**7
    assert memory_limit("cpu", 0.001) == 10**6
