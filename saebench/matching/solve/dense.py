"""Assignment where the matrix of cosines is small enough to hold: SciPy's solver, and dual prices of its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

DENSE_ALLOWED = 4096
"""No matrix of all cosines is made where a side is larger."""
_TOLERANCE = 1e-14


def solve_dense(c: Floats) -> tuple[Places, Floats, Floats]:
    """Best assignment of `c [n, m]`, n <= m: `(column_of [n], u [n], v [m])` with `u_i + v_j >= c_ij`, v >= 0.

    SciPy gives no prices. They are the least v >= 0 with `v_j >= v_p(i) + c_ij - c_ip(i)` for all pairs: raised from 0
    by the rows whose column has changed its price, until nothing changes (Bellman-Ford); 0 at columns that stay free.
    u_i is then `max_j (c_ij - v_j)`.
    """
    n, m = c.shape
    if not n:
        return np.zeros(0, np.int64), np.zeros(0), np.zeros(m)
    _, column_of = linear_sum_assignment(c, maximize=True)
    own = c[np.arange(n), column_of]
    row_of = np.full(m, -1)
    row_of[column_of] = np.arange(n)
    v = np.zeros(m)
    active = np.arange(n)
    for _ in range(4 * m + 16):
        asked = c[active] if len(active) < n else c.copy()
        asked += (v[column_of[active]] - own[active])[:, None]
        best = asked.max(0)
        raised = np.flatnonzero(best > v + _TOLERANCE)
        v[raised] = best[raised]
        active = row_of[raised]
        active = active[active >= 0]
        if not len(active):
            break
    return column_of.astype(np.int64), (c - v).max(1), v
