"""A sparse graph of pairs, and the dual prices of an assignment on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs with their values in CSR order: by row, then column, each once. Every row has one at least.

    Attributes:
        n, m: Rows and columns, n <= m.
        keys: `[E]` row * m + column, increasing.
        values: `[E]` float64 `c_ij`.
    """

    n: int
    m: int
    keys: Places
    values: Floats

    @classmethod
    def of(cls, n: int, m: int, rows: Places, columns: Places, value: Callable[[Places, Places], Floats]) -> Edges:
        """Sorted, doubles dropped."""
        keys = np.unique(rows * m + columns)
        return cls(n, m, keys, value(keys // m, keys % m))

    def joined(self, rows: Places, columns: Places, values: Floats) -> Edges:
        """With more pairs."""
        keys, first = np.unique(np.concatenate([self.keys, rows * self.m + columns]), return_index=True)
        return Edges(self.n, self.m, keys, np.concatenate([self.values, values])[first])

    def where(self, kept: NDArray[np.bool_]) -> Edges:
        """Some of them."""
        return Edges(self.n, self.m, self.keys[kept], self.values[kept])

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def rows(self) -> Places:
        """`[E]`."""
        return self.keys // self.m

    @cached_property
    def columns(self) -> Places:
        """`[E]`."""
        return self.keys - self.rows * self.m

    @cached_property
    def offsets(self) -> Places:
        """`[n + 1]`."""
        return np.searchsorted(self.keys, np.arange(self.n + 1) * self.m)

    def value(self, rows: Places, columns: Places) -> Floats:
        """Values of pairs that are among the edges."""
        found: Floats = self.values[np.searchsorted(self.keys, rows * self.m + columns)]
        return found

    def valued(self, values: Floats) -> Edges:
        """The same pairs with other values."""
        other = Edges(self.n, self.m, self.keys, values)
        other.__dict__.update(rows=self.rows, columns=self.columns, offsets=self.offsets)
        return other

    def of_rows(self, rows: Places) -> tuple[Places, Places]:
        """Places of all edges of some rows, and where each row begins among them."""
        counts = self.offsets[rows + 1] - self.offsets[rows]
        starts = np.cumsum(counts) - counts
        return np.repeat(self.offsets[rows] - starts, counts) + np.arange(counts.sum()), starts


_CYCLE_EVERY = 8


class Prices(NamedTuple):
    """Of rows and of columns, and whether they prove the assignment the best on its edges."""

    u: Floats
    v: Floats
    proven: bool


def best_gain(edges: Edges, v: Floats) -> Floats:
    """`[n]`: `max_j (c_ij - v_j)` over the edges."""
    return np.asarray(np.maximum.reduceat(edges.values - v[edges.columns], edges.offsets[:-1]))


def prices(edges: Edges, column_of: Places, start: Floats, *, tolerance: float = 1e-13) -> Prices:
    """Dual prices u `[n]`, v `[m]`, v >= start: `u_i + v_j = c_ij` on the pairs of an assignment, `>=` on all edges.

    `v_j >= v_p(i) + c_ij - c_ip(i)` for every edge, raised until nothing changes (Bellman-Ford from the rows whose
    column changed its price). There are such prices if the assignment is the best on the edges. If it is not, columns
    raise each other round a cycle for ever; the cycle shows among the columns that last raised each other (Tarjan
    1981), and that ends it.

    Args:
        edges, column_of: The graph, and the column of each row.
        start: `[m]`.
        tolerance: Smaller raises are rounding.
    """
    n, m = edges.n, edges.m
    own = edges.value(np.arange(n), column_of)
    gains = edges.values - own[edges.rows]
    row_of = np.full(m, -1)
    row_of[column_of] = np.arange(n)
    v = start.copy()
    raised_by = np.arange(m)  # column whose price last raised this one's; itself at the start
    active = np.arange(n)
    for sweep in range(1, 4 * m + 16):
        places, starts = edges.of_rows(active)
        counts = np.diff(np.append(starts, len(places)))
        sources = np.repeat(column_of[active], counts)
        asked = v[sources] + gains[places]
        columns = edges.columns[places]
        raised = asked > v[columns] + tolerance
        if not raised.any():
            break
        columns, asked, sources = columns[raised], asked[raised], sources[raised]
        np.maximum.at(v, columns, asked)
        highest = asked == v[columns]
        raised_by[columns[highest]] = sources[highest]
        touched = np.zeros(m, dtype=bool)
        touched[columns] = True
        active = row_of[touched]
        active = active[active >= 0]
        if not len(active):
            break
        if sweep % _CYCLE_EVERY == 0 and _has_cycle(raised_by):
            return Prices(own - v[column_of], v, False)
    # a raised price of a column that stays free says that some row should have it
    free = row_of < 0
    return Prices(own - v[column_of], v, bool((v[free] <= start[free] + 1e-12).all()))


def _has_cycle(parent: Places) -> bool:
    """Whether following `parent` from somewhere never ends at an element that is its own."""
    root = parent
    for _ in range(int(np.ceil(np.log2(len(parent) + 1)))):
        root = root[root]
    return bool((parent[root] != root).any())
