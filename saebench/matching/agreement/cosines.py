"""What one pair of dictionaries scores, before chance is taken out: read by the real pairs and by the null alike.

Cosines are signed. Latents tagged `signed_latents` may be negative, so the sign of their direction is not identified
(flipping code and direction changes nothing): with `signed=False` every cosine here is its absolute value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.assignment import DENSE_UP_TO, match, match_cosines
from saebench.matching.directions import as_matrix, cosine_matrix, unit_rows
from saebench.matching.result import Matching
from saebench.matching.solve.nearest import best_cosines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

THRESHOLD = 0.7
"""A pair is shared where its cosine is over this (Paulo and Belrose 2025; FaithfulSAE)."""
CURVE = tuple(i / 20 for i in range(20))
"""Thresholds of the curve of shared pairs."""
BINS = tuple(i / 50 - 1 for i in range(101))
"""Edges of histograms of cosines."""
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Latents:
    """What stability needs of one SAE.

    Attributes:
        decoder: `[d_sae, d]` directions, an array or a tensor.
        encoder: `[d_sae, d]` directions, or None.
        dead: `[d_sae]` bool, or None if not known.
        support: `[d_sae, d]` bool of a frozen support (a mask that no seed changes), or None: chance is then sampled on
            it.
    """

    decoder: Any
    encoder: Any | None = None
    dead: Bools | None = None
    support: Bools | None = None

    @property
    def alive(self) -> Bools:
        """`[d_sae]` bool; all of them where deadness is not known."""
        return np.ones(len(self.decoder), dtype=bool) if self.dead is None else ~self.dead

    @property
    def tied(self) -> bool:
        """True where every latent reads the direction that it writes (up to scale)."""
        return self.encoder is not None and same_directions(self.decoder, self.encoder)


@dataclass(frozen=True, eq=False)
class Compared:
    """Everything that needs the cosines of two sets of directions.

    Attributes:
        matching: All rows of A with all rows of B.
        alive: Those kept of A with those kept of B, under their indices in A and B; the same object where all are kept.
        mmcs: (mean_i max_j cos(a_i, b_j) + mean_j max_i cos(a_i, b_j)) / 2.
    """

    matching: Matching
    alive: Matching
    mmcs: float


def compare(A: Any, B: Any, keep_a: Bools, keep_b: Bools, *, signed: bool = True, **solver: Any) -> Compared:
    """The matchings and best cosines of `A [n, d]` and `B [m, d]`.

    The matrix of cosines is made once where it is small.

    Args:
        A, B: Directions.
        keep_a, keep_b: `[n]` and `[m]` bool: the latents that are alive.
        signed: See `matching.match`.
        solver: Further arguments of `matching.match`.
    """
    rows, columns = np.flatnonzero(keep_a), np.flatnonzero(keep_b)
    if max(len(A), len(B)) <= DENSE_UP_TO and not _limited(solver):
        cosines = cosine_matrix(A, B)
        if not signed:
            cosines = np.abs(cosines)
        matching, best = match_cosines(cosines), (cosines.max(1), cosines.max(0))

        def among_kept() -> Matching:
            return match_cosines(cosines[np.ix_(rows, columns)])
    else:
        matching, best = (
            match(A, B, signed=signed, **solver),
            best_cosines(A, B, signed=signed, device=solver.get("device")),
        )

        def among_kept() -> Matching:
            return match(A[keep_a], B[keep_b], signed=signed, **solver)

    mmcs = float(best[0].mean() + best[1].mean()) / 2
    if len(rows) == len(A) and len(columns) == len(B):
        return Compared(matching, matching, mmcs)
    alive = among_kept() if min(len(rows), len(columns)) else _no_pairs(len(rows), len(columns))
    return Compared(matching, replace(alive, rows=rows[alive.rows], columns=columns[alive.columns]), mmcs)


def n_shared(matching: Matching, threshold: float) -> int:
    """Pairs with a cosine over the threshold (strictly)."""
    return int((matching.cosines > threshold).sum())


def n_strict(decoder: Matching, encoder: Matching, n: int, threshold: float) -> int:
    """Pairs that both matchings make and whose cosines both reach the threshold; A has `n` latents."""
    partner = np.full(n, -1)
    partner[encoder.rows] = encoder.columns
    cosine = np.zeros(n)
    cosine[encoder.rows] = encoder.cosines
    agree = partner[decoder.rows] == decoder.columns
    return int((agree & (decoder.cosines >= threshold) & (cosine[decoder.rows] >= threshold)).sum())


def curve(matching: Matching, size: int) -> Floats:
    """Share of `size` whose matched cosine is over each threshold of `CURVE`."""
    return np.array([n_shared(matching, threshold) / size for threshold in CURVE])


def same_directions(A: Any, B: Any) -> bool:
    """True where each row of `A [n, d]` points where that row of `B` points; two zero rows do."""
    if tuple(A.shape) != tuple(B.shape):
        return False
    for start in range(0, len(A), _BLOCK):
        a, b = (unit_rows(as_matrix(rows[start : start + _BLOCK], "directions")) for rows in (A, B))
        if np.abs(a - b).max(initial=0) > 1e-6:
            return False
    return True


def _limited(options: dict[str, Any]) -> bool:
    """True where only `match` can do what is asked: a limit is set, or a method is named."""
    limited = any(options.get(name) is not None for name in ("time_limit_s", "memory_limit_bytes"))
    return limited or options.get("method", "auto") != "auto"


def _no_pairs(n: int, m: int) -> Matching:
    """The matching where one side is empty: no pair, and no better one."""
    none = np.zeros(0, dtype=np.int64)
    return Matching(none, none, np.zeros(0), 0.0, 0.0, True, np.zeros(n), np.zeros(m), {"stopped": None})
