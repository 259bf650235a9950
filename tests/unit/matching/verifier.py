"""An independent judge of a `Matching`: plain NumPy on the raw matrices, nothing of the solver.

It believes nothing that the matching says of itself: cosines are computed anew in float64, the prices are held against
every pair, what they fail to cover is added to their sum, and the gap that the matching claims must not be smaller than
what is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

BLOCK = 512
SMALLEST = 1e-6


def plain(matrix: Any) -> np.ndarray:
    """Float64 array of whatever it is."""
    if hasattr(matrix, "detach"):
        matrix = matrix.detach().cpu().double().numpy()
    return np.asarray(matrix, dtype=np.float64)


def directions(matrix: Any) -> np.ndarray:
    """Rows of length 1; zero rows stay."""
    rows = plain(matrix)
    if not rows.size:
        return rows
    _, exponent = np.frexp(np.abs(rows).max(1))
    rows = np.ldexp(rows, -exponent[:, None])
    norm = np.sqrt((rows * rows).sum(1))
    return rows / np.where(norm > 0, norm, 1.0)[:, None]


def similarities(factors: Sequence[tuple[Any, Any]], signed: bool = True) -> np.ndarray:
    """`[n, m]` float64: the mean over factors of the cosine (of its absolute value)."""
    parts = [np.clip(directions(A) @ directions(B).T, -1, 1) for A, B in factors]
    return sum(part if signed else np.abs(part) for part in parts) / len(parts)


def best_total(factors: Sequence[tuple[Any, Any]], signed: bool = True) -> float:
    """The optimum, by SciPy on the whole matrix."""
    c = similarities(factors, signed)
    return math.fsum(c[linear_sum_assignment(c, maximize=True)])


def close_to(total: float, best: float, pairs: int) -> bool:
    """Equal to 1e-9 relative; sums near 0 to the rounding of their terms."""
    return abs(total - best) <= max(1e-9 * abs(best), 1e-12 * max(1, pairs))


def verify(found: Any, factors: Sequence[tuple[Any, Any]], *, signed: bool = True) -> float:
    """Raises AssertionError unless `found` is a one-to-one matching whose certificate proves the gap that it claims.

    Returns:
        An upper bound of the optimum, proven here.
    """
    pairs = [(directions(A), directions(B)) for A, B in factors]
    n, m = pairs[0][0].shape[0], pairs[0][1].shape[0]
    k = min(n, m)
    rounding = 4 * (max(a.shape[1] for a, _ in pairs) + 8) * 2.0**-53

    rows, columns = np.asarray(found.rows), np.asarray(found.columns)
    assert rows.dtype == columns.dtype == np.int64, "places are int64"
    assert rows.shape == columns.shape == (k,), f"{rows.shape} and {columns.shape} places for {k} pairs"
    assert np.all(np.diff(rows) > 0), "rows do not increase"
    assert len(np.unique(columns)) == k, "a column is used twice"
    if k:
        assert rows[0] >= 0, "no such row"
        assert rows[-1] < n, "no such row"
        assert columns.min() >= 0, "no such column"
        assert columns.max() < m, "no such column"

    own = np.zeros(k)
    for a, b in pairs:
        cosines = np.clip((a[rows] * b[columns]).sum(1), -1, 1)
        own += (cosines if signed else np.abs(cosines)) / len(pairs)
    assert found.cosines.dtype == np.float64, "cosines are float64"
    assert found.cosines.shape == (k,), "a cosine a pair"
    assert np.abs(found.cosines - own).max(initial=0) <= rounding, "a cosine is not that of its pair"
    total = math.fsum(own)
    assert abs(found.total - total) <= max(1, k) * rounding, f"total: told {found.total}, found {total}"

    u, v = np.asarray(found.row_prices), np.asarray(found.column_prices)
    assert u.shape == (n,), "a price a row"
    assert v.shape == (m,), "a price a column"
    assert np.isfinite(u).all(), "a price is not finite"
    assert np.isfinite(v).all(), "a price is not finite"
    if n < m:
        assert v.min() >= 0, "a column may stay free, and its price is negative"
    if n > m:
        assert u.min() >= 0, "a row may stay free, and its price is negative"
    uncovered = np.zeros(n)
    for start in range(0, n, BLOCK):
        part = slice(start, min(n, start + BLOCK))
        c = np.zeros((part.stop - part.start, m))
        for a, b in pairs:
            cosines = np.clip(a[part] @ b.T, -1, 1)
            c += (cosines if signed else np.abs(cosines)) / len(pairs)
        uncovered[part] = (c - u[part, None] - v[None]).max(1, initial=0)
    size = max(1.0, float(np.abs(u).max(initial=0)), float(np.abs(v).max(initial=0)))
    assert uncovered.max(initial=0) <= rounding * size, f"a pair is {uncovered.max()} above its prices"

    # rows whose prices are raised by what they lack: now every pair is covered, so no matching can have more
    bound = math.fsum([*u.tolist(), *v.tolist(), *uncovered.tolist()])
    gap = max(0.0, bound - total)
    assert bound >= total - k * rounding, "the bound lies below the matching"
    assert found.relative_gap >= 0, "a gap is never negative"
    assert found.proven == (found.relative_gap <= 1e-6), "proven means a gap of 1e-6 and less"
    # the optimum x lies between total and bound: (x - total) / |x| is largest at the bound where total > 0, and where
    # bound < 0 |x| is smallest there; between them it may be 0. Smaller ones count as SMALLEST a pair, as the matching
    # says of itself.
    size = bound if total > 0 else max(0.0, -bound)
    claimed = found.relative_gap * max(size, SMALLEST * k)
    assert gap <= claimed * (1 + 1e-9), f"a gap of {found.relative_gap} is claimed, {gap} on {total} is proven"
    return bound
