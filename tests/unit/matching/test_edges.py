"""Graphs of pairs, and the dual prices of an assignment on them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_cases import NO_PAIR, graph
from scipy.optimize import linear_sum_assignment

from saebench.matching.solve.edges import Edges, best_gain, prices


def whole(c: np.ndarray) -> Edges:
    n, m = c.shape
    rows, columns = np.divmod(np.arange(n * m), m)
    return Edges.of(n, m, rows, columns, lambda i, j: c[i, j])


def test_edges_are_sorted_single_and_addressed_by_row() -> None:
    c = np.random.default_rng(0).standard_normal((4, 6))
    edges = Edges.of(4, 6, np.array([3, 0, 2, 0, 1, 3]), np.array([5, 4, 0, 1, 3, 5]), lambda i, j: c[i, j])
    assert edges.rows.tolist() == [0, 0, 1, 2, 3]
    assert edges.columns.tolist() == [1, 4, 3, 0, 5]
    assert edges.offsets.tolist() == [0, 2, 3, 4, 5]
    assert edges.values.tolist() == c[edges.rows, edges.columns].tolist()
    more = edges.joined(np.array([1, 0]), np.array([0, 4]), np.array([7.0, -9.0]))  # the second is there already
    assert len(more) == 6
    assert more.value(np.array([1, 0]), np.array([0, 4])).tolist() == [7.0, c[0, 4]]
    places, starts = more.of_rows(np.array([3, 0, 1]))
    assert more.columns[places].tolist() == [5, 1, 4, 0, 3]
    assert starts.tolist() == [0, 1, 3]
    kept = more.where(more.values < 7)
    assert kept.keys.tolist() == edges.keys.tolist()
    other = edges.valued(-edges.values)
    assert other.values.tolist() == (-edges.values).tolist()
    assert other.keys is edges.keys


def test_the_best_gain_of_each_row() -> None:
    c = np.random.default_rng(0).standard_normal((3, 5))
    v = np.arange(5.0)
    assert best_gain(whole(c), v).tolist() == (c - v).max(1).tolist()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(0, 4), st.integers(0, 2**20), st.booleans(), st.booleans())
def test_prices_are_proven_exactly_where_the_assignment_is_the_best(
    n: int, more: int, seed: int, whole_numbers: bool, start_high: bool
) -> None:
    """Linear programming duality: an assignment has prices if and only if no other one on the edges is better."""
    rng = np.random.default_rng(seed)
    edges, c = graph(rng, n, n + more, 0.5)
    if whole_numbers:
        edges, c = edges.valued(np.round(2 * edges.values)), np.where(c > NO_PAIR, np.round(2 * c), c)
    best_columns = linear_sum_assignment(c, maximize=True)[1]
    best = c[np.arange(n), best_columns].sum()
    start = rng.standard_normal(n + more) if start_high and not more else np.zeros(n + more)
    for column_of in [best_columns, np.arange(n), *(_another(rng, c, best_columns) for _ in range(4))]:
        found = prices(edges, column_of, start)
        own = edges.value(np.arange(n), column_of)
        assert found.proven == bool(own.sum() > best - 1e-9)
        if found.proven:
            assert (found.u[edges.rows] + found.v[edges.columns] - edges.values).min() >= -1e-12
            assert (found.v >= start).all()
            assert found.u + found.v[column_of] == pytest.approx(own, abs=1e-12)
            if more:
                assert np.delete(found.v, column_of).max() <= 1e-12


def _another(rng: np.random.Generator, c: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """An assignment on the edges that differs from the best by an exchange, or by a free column, where there is one."""
    n, m = c.shape
    columns = columns.copy()
    i, j = rng.integers(0, n, 2)
    if c[i, columns[j]] > NO_PAIR and c[j, columns[i]] > NO_PAIR:
        columns[[i, j]] = columns[[j, i]]
    free = np.setdiff1d(np.arange(m), columns)
    free = free[c[i, free] > NO_PAIR]
    if len(free) and rng.random() < 0.5:
        columns[i] = free[0]
    return columns


def test_a_free_column_that_a_row_would_rather_have_is_no_proof() -> None:
    found = prices(whole(np.array([[0.0, 1.0]])), np.array([0]), np.zeros(2))
    assert not found.proven
    assert found.v[1] == 1


@pytest.mark.parametrize("n", [2, 3, 40, 500])
@pytest.mark.parametrize("gain", [1e-9, 1.0])
def test_an_endless_rise_is_found_out_early(n: int, gain: float) -> None:
    """A cycle of n exchanges gains a little: its prices would rise by as little a time, without end."""
    own = np.arange(n)
    rows, columns = np.concatenate([own, own]), np.concatenate([own, (own + 1) % n])
    values = np.concatenate([np.zeros(n), np.full(n, -1.0)])
    values[-1] = n - 1 + gain
    c = np.full((n, n), NO_PAIR)
    c[rows, columns] = values
    edges = Edges.of(n, n, rows, columns, lambda i, j: c[i, j])
    found = prices(edges, own, np.zeros(n))
    assert not found.proven
    assert found.v.max() <= n + 100 * gain  # gone round a few times, not as often as 1 / gain
    values[-1] = n - 1 - gain
    c[rows, columns] = values
    assert prices(Edges.of(n, n, rows, columns, lambda i, j: c[i, j]), own, np.zeros(n)).proven


def test_a_chain_as_long_as_the_graph_ends() -> None:
    """Each row prefers the column of its neighbour: the price of the last one is the sum of all steps."""
    n = 300
    own = np.arange(n)
    rows, columns = np.concatenate([own, own[:-1]]), np.concatenate([own, own[1:]])
    edges = Edges.of(n, n, rows, columns, lambda i, j: np.where(i == j, 0.0, 0.25))
    found = prices(edges, own, np.zeros(n))
    assert found.proven
    assert found.v.tolist() == (0.25 * own).tolist()
