"""The sparse method, from a `Similarity` to a `Matching`: zero rows, orientation, progress, certificate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench import console
from saebench.matching.result import Matching, finished
from saebench.matching.solve.solver import Limits, Solution, Solver, Watch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.matching.solve.similarity import Similarity

    Places = NDArray[np.int64]


def match_sparse(
    similarity: Similarity,
    *,
    solver: str = "auto",
    time_limit_s: float | None = None,
    memory_limit_bytes: int | None = None,
    progress: bool = False,
    may_stall: bool = False,
) -> Matching:
    """See `match`.

    Zero rows are matched last, with what is left; should that not be the best, they take part like all others.
    """
    turned = similarity.n > similarity.m
    if turned:
        similarity = similarity.transposed()
    limits = Limits(time_limit_s, memory_limit_bytes)
    rows, columns = similarity.nonzero()
    name = "scipy" if solver == "auto" else solver
    rounding = similarity.rounding()

    def made(found: Solution, turned: bool = False) -> Matching:
        facts = {"method": "sparse", **found.facts}
        return finished(
            np.arange(len(found.u)), found.column_of, found.cosines, found.u, found.v, turned, rounding, facts
        )

    found: Solution | None = None
    with (
        console.showing(outputs=False) if progress else nullcontext(),
        console.phase("matching", total=1.0) as bar,
    ):
        watch = _watch(bar)

        def solve(part: Similarity) -> Solution:
            return Solver(part, solver=name, limits=limits, watch=watch, may_stall=may_stall).solve()

        if len(rows) < similarity.n or len(columns) < similarity.m:
            found = _without_zeros(similarity, rows, columns, solve)
        if found is None or (found.facts["stopped"] is None and not made(found).proven):
            whole = solve(similarity)
            # a limit may have ended this one earlier than the other
            if found is None or made(whole).proven or whole.cosines.sum() >= found.cosines.sum():
                found = whole
    return made(found, turned)


def _without_zeros(
    similarity: Similarity, rows: Places, columns: Places, solve: Callable[[Similarity], Solution]
) -> Solution:
    """The best among matchings of as many rows with a direction as possible.

    A zero row or column has price 0 and cosine 0 with all others, whose prices then must not be under 0 either. Where
    raising those that are leaves a gap, a row with a direction may do better with a zero column, and the caller solves
    the whole.
    """
    n, m = similarity.n, similarity.m
    u, v = np.zeros(n), np.zeros(m)
    column_of = np.full(n, -1)
    facts: dict[str, Any] = {"rounds": 0, "passes": 0.0, "stopped": None, "candidates": 0}
    if len(rows) and len(columns):
        part = similarity.take(rows, columns)
        turned = part.n > part.m
        solution = solve(part.transposed() if turned else part)
        facts |= solution.facts
        if turned:
            column_of[rows[solution.column_of]] = columns
            u[rows], v[columns] = solution.v, solution.u
        else:
            column_of[rows] = columns[solution.column_of]
            u[rows], v[columns] = solution.u, solution.v
        if len(rows) == len(columns):
            # sides of one size: what every row gives and every column gets changes nothing
            shift = max(0.0, min(-float(u[rows].min()), float(v[columns].min())))
            u[rows] += shift
            v[columns] -= shift
    if len(columns) < m:
        u = np.maximum(u, 0)
    if len(rows) < n or n < m:
        v = np.maximum(v, 0)
    free = np.ones(m, dtype=bool)
    free[column_of[column_of >= 0]] = False
    left = np.flatnonzero(column_of < 0)
    column_of[left] = np.flatnonzero(free)[: len(left)]
    cosines = similarity.exact(np.arange(n), column_of)
    return Solution(column_of, cosines, u, v, float(u.sum() + v.sum()), facts)


def _watch(bar: console.Phase) -> Watch:
    """Shows the stage, how much of this pass is done, and the gap proven so far."""

    def stage(name: str) -> None:
        bar.detail, bar.n = name, 0.0

    def share(done: float) -> None:
        bar.n = min(1.0, bar.n + done)

    def note(text: str) -> None:
        bar.note = text

    return Watch(stage, share, note)
