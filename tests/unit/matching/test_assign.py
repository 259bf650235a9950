"""Assignment on sparse graphs: the auction, the greedy one, the staged solver, OR-tools."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_cases import NO_PAIR, crowd, graph
from scipy.optimize import linear_sum_assignment

from saebench.api.errors import MachineError
from saebench.matching import match
from saebench.matching.solve import assign as module
from saebench.matching.solve.assign import assign, assign_ortools, auction, greedy
from saebench.matching.solve.edges import Edges, best_gain

KINDS = ["random", "ties", "equal", "near", "negative"]


def optimum(c: np.ndarray) -> float:
    return float(c[linear_sum_assignment(c, maximize=True)].sum())


def case(n: int, more: int, kind: str, seed: int) -> tuple[Edges, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (n, n + more)
    values = {
        "random": rng.uniform(-1, 1, shape),
        "ties": np.round(rng.uniform(-1, 1, shape), 1),
        "equal": np.full(shape, 0.3),
        "near": 0.3 + 10 ** rng.uniform(-13, -2) * rng.standard_normal(shape),
        "negative": rng.uniform(-1, -0.5, shape),
    }
    return graph(rng, n, n + more, rng.choice([0.1, 0.5, 1]), values[kind])


def certified(edges: Edges, c: np.ndarray, column_of: np.ndarray, u: np.ndarray, v: np.ndarray) -> None:
    n, m = c.shape
    assert len(set(column_of.tolist())) == n
    total = c[np.arange(n), column_of].sum()
    assert total == pytest.approx(optimum(c), abs=1e-9)
    assert (u[edges.rows] + v[edges.columns] - edges.values).min() >= -1e-11
    assert u.sum() + v.sum() == pytest.approx(total, abs=1e-9)
    if n < m:
        assert v.min() >= 0
        assert np.delete(v, column_of).max() <= 1e-11


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.sampled_from([0, 0, 1, 3, 30]), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_the_optimum_from_any_prices(n: int, more: int, kind: str, seed: int) -> None:
    edges, c = case(n, more, kind, seed)
    rng = np.random.default_rng(seed)
    # prices of columns that no row will pay, too
    for v in (
        np.zeros(c.shape[1]),
        auction(edges).v,
        rng.uniform(0, 2, c.shape[1]),
        10.0 * (rng.random(c.shape[1]) < 0.3),
    ):
        certified(edges, c, *assign(edges, best_gain(edges, v), v, np.inf, lambda: None))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.sampled_from([0, 0, 2, 30]), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_the_optimum_within_the_slack_that_is_left(n: int, more: int, kind: str, seed: int) -> None:
    """As the solver goes on: prices with a proven gap, beyond which no pair can lose."""
    edges, c = case(n, more, kind, seed)
    _, u, v = assign(edges, *auction(edges)[:2], np.inf, lambda: None)
    # new pairs come up, at which prices fail by a little
    new = 0.01 * np.random.default_rng(seed).random(len(edges))
    c[edges.rows, edges.columns] += new
    edges = edges.valued(edges.values + new)
    u = u + np.maximum(0, best_gain(edges, v) - u)
    gap = u.sum() + v.sum() - optimum(c)
    certified(edges, c, *assign(edges, u, v, gap + 1e-9, lambda: None))


def test_the_price_of_a_column_that_stays_free_is_given_back() -> None:
    c = np.array([[0.5, 0.9, 0.1], [0.1, 0.8, 0.3]])
    edges, _ = graph(np.random.default_rng(0), 2, 3, 1, c)
    v = np.array([0.0, 0.0, 5.0])
    column_of, u, v = assign(edges, best_gain(edges, v), v, np.inf, lambda: None)
    certified(edges, c, column_of, u, v)
    assert column_of.tolist() == [0, 1]
    assert v[2] == 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 60), st.sampled_from([0, 0, 1, 30]), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_auction_prices_cover_all_edges(n: int, more: int, kind: str, seed: int) -> None:
    edges, c = case(n, more, kind, seed)
    u, v, proven = auction(edges)
    assert not proven
    assert v.min() >= 0
    assert (u[edges.rows] + v[edges.columns] - edges.values).min() >= -1e-12
    assert u.sum() + v.sum() >= optimum(c) - 1e-9


def test_auction_prices_are_near_the_best_ones() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        favourite = rng.uniform(0, 1, 200) + rng.uniform(0, 0.2, (200, 200))  # all rows want the same columns
        edges, c = graph(rng, 200, 200, 0.3, favourite)
        u, v, _ = auction(edges)
        best = optimum(c)
        assert best_gain(edges, np.zeros(200)).sum() - best > 40
        assert u.sum() + v.sum() - best < 200 * module.AUCTION_STEP + 1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(0, 10), st.integers(0, 2**20))
def test_greedy_is_the_plain_greedy_one(n: int, more: int, seed: int) -> None:
    edges, c = case(n, more, "random", seed)
    column_of = greedy(edges)
    rows, columns = {}, set()
    for place in np.argsort(-edges.values):
        i, j = int(edges.rows[place]), int(edges.columns[place])
        if i not in rows and j not in columns:
            rows[i] = j
            columns.add(j)
    assert all(column_of[i] == j for i, j in rows.items())
    assert len(set(column_of.tolist())) == n  # the others take what is free
    assert c.shape[1] > column_of.max()


# ---- price wars
# -------------------------------------------------------------------------------------------------------


MOST_CALLS = {True: 6, False: 30}
"""Of SciPy's solver, by whether sizes are equal: six stages from the coarsest grid to none, of five attempts where a
column may stay free."""


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each call of SciPy's solver."""
    calls: list[int] = []
    solve = module.cheapest

    def counting(edges: Edges, costs: np.ndarray, slack: float) -> np.ndarray:
        calls.append(len(edges))
        return solve(edges, costs, slack)

    monkeypatch.setattr(module, "cheapest", counting)
    return calls


@pytest.mark.parametrize("shape", [(400, 400), (400, 500)])
@pytest.mark.parametrize("eps", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
def test_rows_that_want_the_same_few_columns_end_in_few_stages(
    eps: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """21 rows, 20 columns, all nearly equal: without stages SciPy's solver bids for minutes in steps of eps squared."""
    A, B = crowd(*shape, 24, eps, (21, 20))
    calls = counted(monkeypatch)
    found = match(A, B, method="sparse")
    assert found.proven
    assert found.total == pytest.approx(match(A, B, method="dense").total, rel=1e-12)
    assert len(calls) <= MOST_CALLS[shape[0] == shape[1]] * found.facts["rounds"]
    assert found.facts["rounds"] <= 8


@pytest.mark.parametrize("d", [2, 3])
def test_few_dimensions_where_all_rows_are_near_one_another(d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((300, d)), rng.standard_normal((300, d))
    calls = counted(monkeypatch)
    found = match(A, B, method="sparse")
    assert found.proven
    assert found.total == pytest.approx(match(A, B, method="dense").total, rel=1e-12)
    assert len(calls) <= MOST_CALLS[True] * found.facts["rounds"]


def test_a_stop_between_stages_comes_through() -> None:
    edges, _ = case(20, 0, "near", 0)

    class Enough(Exception):
        pass

    def check() -> None:
        raise Enough

    with pytest.raises(Enough):
        assign(edges, *auction(edges)[:2], np.inf, check)


# ---- OR-tools
# ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.sampled_from(KINDS), st.integers(0, 2**20))
def test_ortools_is_near_the_optimum(n: int, kind: str, seed: int) -> None:
    pytest.importorskip("ortools")
    edges, c = case(n, 0, kind, seed)
    column_of, unit = assign_ortools(edges)
    assert len(set(column_of.tolist())) == n
    assert c[np.arange(n), column_of].sum() >= optimum(c) - n * unit
    assert c[np.arange(n), column_of].min() > NO_PAIR


@pytest.mark.parametrize("shape", [(300, 300), (300, 400), (400, 300)])
@pytest.mark.parametrize("signed", [True, False])
def test_both_solvers_find_the_same_total(shape: tuple[int, int], signed: bool) -> None:
    pytest.importorskip("ortools")
    A, B = crowd(*shape, 24, 1e-3, (12, 10))
    with_ortools = match(A, B, signed=signed, method="sparse", solver="ortools")
    with_scipy = match(A, B, signed=signed, method="sparse", solver="scipy")
    assert with_ortools.proven
    assert with_ortools.total == pytest.approx(with_scipy.total, rel=1e-12)
    assert with_scipy.facts["solver"] == "scipy"


def test_ortools_that_is_not_there_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.graph.python", None)
    A, B = crowd(50, 50, 8, 0.1, (2, 2))
    with pytest.raises(MachineError, match=r"not installed. Install the extra \[matching\], or use the solver 'scipy'"):
        match(A, B, method="sparse", solver="ortools")
