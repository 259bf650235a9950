"""The dense solver and its prices."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from saebench.matching.solve.dense import solve_dense


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 4), (5, 5), (3, 6)])
@pytest.mark.parametrize("decimals", [15, 1, 0])  # 0: nearly all are ties
def test_the_best_of_all_assignments_with_prices_that_prove_it(shape: tuple[int, int], decimals: int) -> None:
    for seed in range(5):
        c = np.round(np.random.default_rng(seed).uniform(-1, 1, shape), decimals)
        column_of, u, v = solve_dense(c)
        total = c[np.arange(len(c)), column_of].sum()
        best = max(sum(c[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(shape[1]), shape[0]))
        assert total == pytest.approx(best, abs=1e-12)
        assert (u[:, None] + v - c).min() >= -1e-13
        assert u.sum() + v.sum() == pytest.approx(total, abs=1e-12)
        assert v.min() >= 0
        assert np.delete(v, column_of).max(initial=0) == 0


def test_no_row() -> None:
    column_of, u, v = solve_dense(np.zeros((0, 3)))
    assert column_of.shape == u.shape == (0,)
    assert v.tolist() == [0, 0, 0]


def test_crowds_end() -> None:
    """Rows that differ by rounding alone: raising prices must end, and prove."""
    rng = np.random.default_rng(0)
    for eps in (0, 1e-16, 1e-15, 1e-14, 1e-12):
        c = 0.5 + eps * rng.standard_normal((200, 200))
        column_of, u, v = solve_dense(c)
        gap = u.sum() + v.sum() - c[np.arange(200), column_of].sum()
        assert abs(gap) < 1e-10
