"""The best assignment on a sparse graph: first prices by auction, then SciPy's solver in stages, or OR-tools."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from saebench.api.errors import MachineError
from saebench.matching.solve.edges import Edges, Prices, best_gain, prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

AUCTION_STEP = 3e-3
"""Least raise of a bid. The prices that it ends with are off by so much, which the assignment afterwards puts right."""
_AUCTION_REST = 0.005
_AUCTION_ROUNDS = 500
_COARSEST, _FINEST = 2.0**-9, 2.0**-46
_GREEDY_ROUNDS = 200


def auction(edges: Edges) -> Prices:
    """Prices u `[n]`, v `[m]` near those of the best assignment, with `u_i + v_j >= c_ij` on all edges.

    All rows without a column bid at once for their best one: its price plus what they would lose by the second best,
    plus a step; the highest bid gets it (Bertsekas 1988, Jacobi form). Ends when few rows are left without one: those
    are a matter of long chains, which a shortest-path method does better.
    """
    n, m = edges.n, edges.m
    v = np.zeros(m)
    owner = np.full(m, -1)
    column_of = np.full(n, -1)
    free = np.arange(n)
    for _ in range(_AUCTION_ROUNDS):
        if len(free) <= _AUCTION_REST * n:
            break
        places, starts = edges.of_rows(free)
        columns = edges.columns[places]
        gain = edges.values[places] - v[columns]
        best = np.maximum.reduceat(gain, starts)
        counts = np.diff(np.append(starts, len(places)))
        hits = np.flatnonzero(gain == np.repeat(best, counts))
        first = hits[np.unique(np.searchsorted(starts, hits, side="right"), return_index=True)[1]]
        favourite = columns[first]
        gain[first] = -np.inf
        second = np.maximum.reduceat(gain, starts)
        second = np.where(np.isfinite(second), second, best - 1)
        bids = v[favourite] + best - second + AUCTION_STEP
        order = np.argsort(bids, kind="stable")
        winner = np.full(m, -1)
        winner[favourite[order]] = order  # the last one written is the highest
        sold = np.flatnonzero(winner >= 0)
        winners = winner[sold]
        v[sold] = bids[winners]
        ousted = owner[sold]
        column_of[ousted[ousted >= 0]] = -1
        owner[sold] = free[winners]
        column_of[free[winners]] = sold
        free = np.flatnonzero(column_of < 0)
    return Prices(best_gain(edges, v), v, False)  # a column without a row was never bid for: its price is 0


def greedy(edges: Edges) -> Places:
    """`[n]` column of each row: again and again the pairs that are each other's best of what is left; then any."""
    column_of = np.full(edges.n, -1)
    taken = np.zeros(edges.m, dtype=bool)
    left = np.argsort(-edges.values, kind="stable")
    for _ in range(_GREEDY_ROUNDS):
        left = left[(column_of[edges.rows[left]] < 0) & ~taken[edges.columns[left]]]
        if not len(left):
            break
        # in falling order, a pair that comes first for its row and for its column is the best of both
        first_row = np.unique(edges.rows[left], return_index=True)[1]
        first_column = np.unique(edges.columns[left], return_index=True)[1]
        chosen = left[np.intersect1d(first_row, first_column, assume_unique=True)]
        column_of[edges.rows[chosen]] = edges.columns[chosen]
        taken[edges.columns[chosen]] = True
    rest = column_of < 0
    column_of[rest] = np.flatnonzero(~taken)[: int(rest.sum())]
    return column_of


def assign(
    edges: Edges, u: Floats, v: Floats, slack: float, check: Callable[[], None]
) -> tuple[Places, Floats, Floats]:
    """The best assignment on the edges, `[n]` column of each row, with its dual prices `(u, v)`.

    SciPy's solver, in stages. It begins by letting rows outbid each other in steps as small as costs differ: rows that
    are nearly equal and want the same columns, which are too, would bid for minutes. So costs are rounded to a grid,
    and the next stage starts at the prices of the last one on a grid 512 times as fine: a war ends after some 512
    steps. A stage ends the matter when its assignment is the best for the values as they are, which its prices then
    prove.

    Args:
        edges: They hold an assignment of all rows.
        u, v: Prices with `u_i + v_j >= c_ij` on all edges, v >= 0 where n < m.
        slack: No pair of the best assignment has a larger reduced cost `u_i + v_j - c_ij` (inf where nothing is known).
        check: Called between stages; may raise to stop.
    """
    square = edges.n == edges.m
    grid = min(_COARSEST, 2.0 ** (math.floor(math.log2(max(slack, 1e-12))) - 9)) if math.isfinite(slack) else _COARSEST
    while True:
        last = grid < _FINEST
        column_of, costs, v = _stage(edges, u, v, slack, 0.0 if last else grid)
        check()
        start = v if square else np.zeros(edges.m)
        found = prices(edges, column_of, start)
        if found.proven or last:
            return column_of, found.u, found.v
        check()
        v = v + prices(edges.valued(-costs), column_of, np.zeros(edges.m), tolerance=grid / 4).v
        u = best_gain(edges, v)
        slack = float(u.sum() + v.sum() - edges.value(np.arange(edges.n), column_of).sum()) + 1e-9
        grid *= 2.0**-9


def _stage(edges: Edges, u: Floats, v: Floats, slack: float, grid: float) -> tuple[Places, Floats, Floats]:
    """The best assignment on reduced costs, which leave the solver little to search, and on possible pairs alone.

    All assignments lose the same by the reduction if they use the same columns. Where n < m they need not; but one that
    is best on reduced costs and uses every column of positive price is best: any other saves at most the prices of
    columns, and this one pays them all. So prices that are not paid are dropped and it is solved again, in the end
    without any.

    Returns:
        Column of each row, the costs (on the grid, where it is not 0), the column prices that they were reduced by.
    """
    for attempt in range(5):
        if attempt == 4:
            v = np.zeros(edges.m)
            u = best_gain(edges, v)
        costs = np.maximum(0.0, u[edges.rows] + v[edges.columns] - edges.values)
        if grid:
            costs = np.rint(costs / grid) * grid
        column_of = cheapest(edges, costs, slack + grid)
        free = np.ones(edges.m, dtype=bool)
        free[column_of] = False
        unpaid = free & (v > 0)
        if edges.n == edges.m or not unpaid.any():
            break
        v = np.where(unpaid, 0.0, v)
        u = np.maximum(u, best_gain(edges, v))
        slack = np.inf
    return column_of, costs, v


def cheapest(edges: Edges, costs: Floats, slack: float = math.inf) -> Places:
    """`[n]`: columns of the assignment with the least sum of `costs [E]`, 0 or more, by pairs of at most `slack`."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    kept = costs <= slack
    costs = costs + 1.0  # the solver takes a cost of 0 for no pair
    offsets = np.concatenate([[0], np.cumsum(kept)])[edges.offsets]
    graph = csr_matrix((costs[kept], edges.columns[kept], offsets), shape=(edges.n, edges.m))
    _, columns = min_weight_full_bipartite_matching(graph)
    return np.asarray(columns, dtype=np.int64)


def assign_ortools(edges: Edges) -> tuple[Places, float]:
    """The column of each row by OR-tools' cost scaling (extra `matching`), and the unit of its integer costs; n = m.

    Raises:
        MachineError: OR-tools is not installed, or gave up.
    """
    try:
        from ortools.graph.python import linear_sum_assignment
    except ImportError as error:
        raise MachineError(
            "solver 'ortools': OR-tools is not installed. Install the extra [matching], or use the solver 'scipy'."
        ) from error
    solver = linear_sum_assignment.SimpleLinearSumAssignment()
    # its prices grow to n (n + 1) costs and must stay in 63 bits
    scale = 2.0 ** (60 - 2 * int(np.ceil(np.log2(edges.n + 1))))
    costs = np.rint((1 - edges.values) * scale).astype(np.int64)
    solver.add_arcs_with_cost(edges.rows.astype(np.int32), edges.columns.astype(np.int32), costs)
    if (status := solver.solve()) != solver.OPTIMAL:
        raise MachineError(f"solver 'ortools' gave up: {status}. Use the solver 'scipy'.")
    mates = (solver.right_mate(row) for row in range(edges.n))
    return np.fromiter(mates, dtype=np.int64, count=edges.n), 1 / scale
