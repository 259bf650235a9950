"""Exact assignment on few pairs, proven on all of them.

1. Candidates: the strongest pairs of every row and column (`Screen.strongest`).
2. The best assignment on the candidates (`assign.assign`) and its dual prices u, v (`edges.prices`).
3. Pricing: every pair with `c_ij > u_i + v_j` would make a better one possible. A product in low precision says which
   pairs can be such (`Screen.possible`), float64 says which are. None: the assignment is best, by linear programming
   duality, and u, v are the certificate. Otherwise they join the candidates: back to 2.

After a whole pass over all pairs at prices u', v', every pair outside its near list has `c_ij <= u'_i + v'_j - margin`.
At the next prices such a pair can only be a violator if u_i or v_j fell by more than half the margin. So the next
passes read those rows and columns and the near list alone. Nothing is lost by it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.solve.assign import assign, assign_ortools, auction, greedy
from saebench.matching.solve.edges import Edges, best_gain, prices
from saebench.matching.solve.screen import Screen
from saebench.matching.solve.similarity import Similarity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

PER_ROW = 16
"""Candidates of a row and of a column, to begin with."""
MARGIN = 0.01
"""Of the near list: how far prices may fall before all pairs are read again."""
ROUNDING = 1e-12
"""A smaller violation is rounding: it is put on the price and no pair is added for it."""
_PARTIAL = 0.35
"""Share of rows and columns above which a whole pass, with its new near list, costs no more than reading these."""
_MOST_NEAR = 64
"""Pairs a row, on average, that a near list may hold; with more there is none."""
_MOST_ADDED = 32
"""Violating pairs that are added for a row in one round."""
_EDGE_BYTES = 144
"""Of an edge while edges are sorted and assigned: keys, values, rows, columns, costs, and copies."""
_STALLED_EDGES, _STALLED_ROUNDS = 128, 12
"""Edges a row, and rounds, from which the sparse method does not suit the problem."""


class Stopped(Exception):
    """A limit was reached."""


@dataclass
class Limits:
    """When to stop: seconds from now; bytes for low-precision copies, edges and what their handling takes."""

    time_s: float | None = None
    memory_bytes: int | None = None
    started: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        """Raises Stopped after the time."""
        if self.time_s is not None and time.monotonic() - self.started > self.time_s:
            raise Stopped("time")


@dataclass
class Watch:
    """What the solver reports while it works: a stage, the share of it that is done, a line of numbers."""

    stage: Callable[[str], None] = lambda name: None
    share: Callable[[float], None] = lambda share: None
    note: Callable[[str], None] = lambda text: None


@dataclass
class Solution:
    """The best assignment found, and the smallest bound proven.

    Attributes:
        column_of: `[n]`.
        cosines: `[n]` float64.
        u, v: Prices of the bound: `u_i + v_j >= c_ij` for all pairs; v >= 0 where n < m.
        bound: `sum u + sum v`.
        facts: Rounds, candidates, solver, why it stopped.
    """

    column_of: Places
    cosines: Floats
    u: Floats
    v: Floats
    bound: float
    facts: dict[str, Any]


class Solver:
    """See the module's docstring. n <= m.

    Args:
        similarity: What is matched.
        per_row: Candidates of a row (and of a column), about.
        solver: `scipy` or `ortools`, for the first assignment; the later ones are small repairs, and SciPy's.
        limits: When to stop.
        watch: What hears of the progress.
        may_stall: Stop as "stalled" where the sparse method does not suit the problem (crowds of like latents), so that
            another can take over.
    """

    def __init__(
        self,
        similarity: Similarity,
        *,
        per_row: int = PER_ROW,
        solver: str = "scipy",
        limits: Limits | None = None,
        watch: Watch | None = None,
        may_stall: bool = False,
    ) -> None:
        self.similarity, self.n, self.m = similarity, similarity.n, similarity.m
        self.per_row, self.solver = per_row, solver if self.n == self.m else "scipy"
        self.limits, self.watch = limits or Limits(), watch or Watch()
        self.may_stall = may_stall
        # the first certificate: no cosine is over 1
        self.u, self.v = np.ones(self.n), np.zeros(self.m)
        self.bound = float(self.n)
        self.facts: dict[str, Any] = {"rounds": 0, "passes": 0.0, "stopped": None, "solver": self.solver}
        self._near: tuple[Places, Places, Floats] | None = None
        self._reference: tuple[Floats, Floats] = (self.u, self.v)

    def solve(self) -> Solution:
        """Rounds until nothing violates the prices, or a limit is reached."""
        column_of = np.arange(self.n)
        edges: Edges | None = None
        try:
            per_row = self._affordable()
            self.screen = Screen(self.similarity, on_tile=self._on_tile)
            edges, stopped = self._candidates(per_row)
            if stopped is not None:
                raise stopped
            self._suits(edges)
            u, v, _ = auction(edges)
            slack = np.inf
            while True:
                self.limits.check()
                self.watch.stage("assignment")
                column_of, u, v = self._assigned(edges, u, v, slack)
                self.facts["rounds"] += 1
                self.watch.stage("proof")
                rows, columns, values, over = self._violators(u, v)
                u, gap = u + over, float(over.sum())
                bound = float(u.sum() + v.sum())
                self.watch.note(f"gap {gap / max(1e-300, abs(bound)):.0e}")
                if bound <= self.bound:
                    self.u, self.v, self.bound = u, v, bound
                if not len(rows):
                    break
                edges = self._grown(edges, rows, columns, values, u, v, gap)
                slack = gap + 1e-9  # a better assignment gains at most the gap, so none of its pairs loses more
        except Stopped as reason:
            self.facts["stopped"] = str(reason)
            if edges is not None and not self.facts["rounds"]:
                column_of = greedy(edges)
        self.facts["passes"] = round(self.facts["passes"], 3)
        cosines = self.similarity.exact(np.arange(self.n), column_of)
        return Solution(column_of, cosines, self.u, self.v, self.bound, self.facts)

    # ---- the graph
    # ----------------------------------------------------------------------------------------------------

    def _affordable(self) -> int:
        """Candidates of a row that the memory allows."""
        if self.limits.memory_bytes is None:
            return self.per_row
        free = self.limits.memory_bytes - Screen.nbytes(self.similarity)
        per_row = min(self.per_row, int(free // (_EDGE_BYTES * 2 * (self.n + self.m))))
        if per_row < 2:
            raise Stopped("memory")
        return per_row

    def _candidates(self, per_row: int) -> tuple[Edges, Stopped | None]:
        """The strongest pairs, or those found before a limit was reached."""
        self.watch.stage("candidates")
        own = np.arange(self.n)  # whatever the candidates are, each row can have the column of its own number
        rows, columns, stopped = [own], [own], None
        try:
            for found_rows, found_columns in self.screen.strongest(per_row):
                rows.append(found_rows)
                columns.append(found_columns)
        except Stopped as reason:
            stopped = reason
        edges = Edges.of(self.n, self.m, np.concatenate(rows), np.concatenate(columns), self.similarity.exact)
        self.facts["candidates"] = len(edges)
        return edges, stopped

    def _assigned(self, edges: Edges, u: Floats, v: Floats, slack: float) -> tuple[Places, Floats, Floats]:
        """The best assignment on the edges and its prices."""
        if self.facts["rounds"] == 0 and self.solver == "ortools":
            column_of, unit = assign_ortools(edges)
            # integers are a little off: near prices, from which the repair below ends at the best
            v = prices(edges, column_of, np.zeros(self.m), tolerance=4 * unit).v
            u = best_gain(edges, v)
            slack = float(u.sum() + v.sum() - edges.value(np.arange(self.n), column_of).sum()) + 1e-9
        return assign(edges, u, v, slack, self.limits.check)

    def _grown(
        self, edges: Edges, rows: Places, columns: Places, values: Floats, u: Floats, v: Floats, gap: float
    ) -> Edges:
        """The edges and the violating pairs. Where memory is short, edges that the best assignment cannot have go."""
        limit = self.limits.memory_bytes
        most = np.inf if limit is None else (limit - Screen.nbytes(self.similarity)) / _EDGE_BYTES
        if len(edges) + len(rows) > most:
            # pairs that lose more than the gap cannot be in the best assignment
            edges = edges.where(u[edges.rows] + v[edges.columns] - edges.values <= gap + 1e-9)
            if len(edges) + len(rows) > most:
                raise Stopped("memory")
        edges = edges.joined(rows, columns, values)
        self.facts["candidates"] = len(edges)
        self._suits(edges)
        return edges

    def _suits(self, edges: Edges) -> None:
        """Raises Stopped where another method would be faster."""
        if self.may_stall and (len(edges) > _STALLED_EDGES * self.n or self.facts["rounds"] >= _STALLED_ROUNDS):
            raise Stopped("stalled")

    # ---- the proof
    # ----------------------------------------------------------------------------------------------------

    def _violators(self, u: Floats, v: Floats) -> tuple[Places, Places, Floats, Floats]:
        """Pairs to add with their cosines, and `[n]` by how much each row's price is too low, over all pairs."""
        over = np.zeros(self.n)
        if self._near is not None:
            u_then, v_then = self._reference
            rows = np.flatnonzero(u_then - u > MARGIN / 2)
            columns = np.flatnonzero(v_then - v > MARGIN / 2)
            if len(rows) / self.n + len(columns) / self.m < _PARTIAL:
                found = [self._over(*self._near, u, v, over)]
                found += [self._over(i, j, c, u, v, over) for i, j, c in self._priced(u, v, 0.0, rows, None)]
                rest = np.setdiff1d(np.arange(self.n), rows, assume_unique=True)
                found += [self._over(i, j, c, u, v, over) for i, j, c in self._priced(u, v, 0.0, rest, columns)]
                return (*_concatenated(found), over)
        near, n_near = [], 0
        found = []
        for i, j, c in self._priced(u, v, MARGIN, None, None):
            found.append(self._over(i, j, c, u, v, over))
            n_near += len(i)
            if self.may_stall and n_near > _STALLED_EDGES * self.n:
                raise Stopped("stalled")
            if n_near <= _MOST_NEAR * self.n:
                near.append((i, j, c))
        self._near = _concatenated(near) if n_near <= _MOST_NEAR * self.n else None
        self._reference = u, v
        return (*_concatenated(found), over)

    def _priced(
        self, u: Floats, v: Floats, margin: float, rows: Places | None, columns: Places | None
    ) -> Iterator[tuple[Places, Places, Floats]]:
        """All pairs with `c_ij - u_i - v_j > -margin` (and some others), tile by tile."""
        if (rows is not None and not len(rows)) or (columns is not None and not len(columns)):
            return
        for i, j in self.screen.possible(u, v, margin, rows, columns):
            c = self.similarity.exact(i, j)
            kept = c - u[i] - v[j] > -margin
            yield i[kept], j[kept], c[kept]

    def _over(
        self, i: Places, j: Places, c: Floats, u: Floats, v: Floats, over: Floats
    ) -> tuple[Places, Places, Floats]:
        """Raises `over` to what these pairs need. Gives the worst of them, at most `_MOST_ADDED` a row, to be added."""
        excess = c - u[i] - v[j]
        np.maximum.at(over, i, excess)
        kept = np.flatnonzero(excess > ROUNDING)
        if len(kept) > _MOST_ADDED:
            # ties are broken at random: rows that are equal must not all ask for the same columns
            noise = np.random.default_rng(len(kept)).random(len(kept))
            order = kept[np.lexsort((noise, -excess[kept], i[kept]))]
            first = np.concatenate([[True], i[order][1:] != i[order][:-1]])
            place = np.arange(len(order)) - np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
            kept = order[place < _MOST_ADDED]
        return i[kept], j[kept], c[kept]

    def _on_tile(self, share: float) -> None:
        self.facts["passes"] += share
        self.watch.share(share)
        self.limits.check()


def _concatenated(found: list[tuple[Places, Places, Floats]]) -> tuple[Places, Places, Floats]:
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    rows, columns, values = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)
