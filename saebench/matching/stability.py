"""How far SAEs that differ in their seed alone agree on their latents.

Cosines are signed. Latents tagged `signed_latents` may be negative, so the sign of their direction is not identified (flipping code
and direction changes nothing): for them every cosine here is its absolute value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from saebench.matching.assignment import cosine_matrix, match_cosines
from saebench.matching.null import null_cosine
from saebench.matching.subspace import subspace_agreement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

THRESHOLD = 0.7
CURVE = tuple(i / 20 for i in range(20))


@dataclass(frozen=True)
class Latents:
    """One SAE as stability sees it: `decoder [d_sae, d]`, `encoder` alike or None, `dead [d_sae]` bool or None if not known."""

    decoder: Floats
    encoder: Floats | None = None
    dead: Bools | None = None

    @property
    def alive(self) -> Bools:
        """`[d_sae]` bool; all of them where deadness is not known."""
        return np.ones(len(self.decoder), dtype=bool) if self.dead is None else ~self.dead


@dataclass(frozen=True)
class PairScores:
    """Scores of one pair by metric id (None with a reason in `reasons`), and what the curves are drawn from."""

    values: dict[str, float | None]
    reasons: dict[str, str]
    curve: Floats
    curve_alive: Floats | None
    sizes: tuple[int, int]
    alive: tuple[int, int]
    coverage: tuple[float, float]


def pair_scores(a: Latents, b: Latents, *, signed: bool = True) -> PairScores:
    """All stability scores of two SAEs of one site.

    With M the decoder matching that maximises the sum of cosines, s = min(d_sae of a, d_sae of b):
    `sfr` = #{pairs of M with cos > 0.7} / s (FaithfulSAE).
    `sfr-alive`: the same after each side's own dead latents are dropped and the rest matched anew, over the smaller alive count.
    `strict-shared` = #{latents that the decoder matching and the encoder matching pair alike, both cosines >= 0.7} / s (Paulo and
        Belrose 2025). Where encoder and decoder are tied it is sfr (but for ties at 0.7).
    `matched-cosine` = mean cos over M (PW-MCC of Song et al. 2025).
    `matched-cosine-null`: the same for random directions of these counts and width.
    `mmcs` = (mean_i max_j cos(a_i, b_j) + mean_j max_i cos(a_i, b_j)) / 2.
    `subspace-agreement`: `matching.subspace` over alive latents not in a pair of cosine > 0.7.
    """
    cosines = cosine_matrix(a.decoder, b.decoder)
    if not signed:
        cosines = np.abs(cosines)
    n, m = cosines.shape
    smaller = min(n, m)
    matching = match_cosines(cosines)
    shared = matching.cosines > THRESHOLD
    values: dict[str, float | None] = {
        "sfr": int(shared.sum()) / smaller,
        "matched-cosine": matching.total / smaller,
        "matched-cosine-null": null_cosine(n, m, a.decoder.shape[1], signed=signed),
        "mmcs": float(cosines.max(1).mean() + cosines.max(0).mean()) / 2,
    }
    reasons: dict[str, str] = {}

    curve_alive = None
    alive = a.alive, b.alive
    n_alive = min(int(alive[0].sum()), int(alive[1].sum()))
    if a.dead is None or b.dead is None:
        reasons["sfr-alive"] = "it is not known which latents are dead"
    elif n_alive == 0:
        reasons["sfr-alive"] = "one SAE has no latent that is alive"
    else:
        among_alive = match_cosines(cosines[np.ix_(*alive)]).cosines
        values["sfr-alive"] = int((among_alive > THRESHOLD).sum()) / n_alive
        curve_alive = _curve(among_alive, n_alive)

    if a.encoder is None or b.encoder is None:
        reasons["strict-shared"] = "the encoder directions are not known"
    else:
        encoder = match_cosines(cosine_matrix(a.encoder, b.encoder), signed=signed)
        partner = np.full(n, -1)
        partner[encoder.rows] = encoder.columns
        encoder_cosine = np.zeros(n)
        encoder_cosine[encoder.rows] = encoder.cosines
        agree = partner[matching.rows] == matching.columns
        both = agree & (matching.cosines >= THRESHOLD) & (encoder_cosine[matching.rows] >= THRESHOLD)
        values["strict-shared"] = int(both.sum()) / smaller

    orphan_a, orphan_b = alive[0].copy(), alive[1].copy()
    orphan_a[matching.rows[shared]] = False
    orphan_b[matching.columns[shared]] = False
    agreement, reason = subspace_agreement(a.decoder[orphan_a], b.decoder[orphan_b])
    values["subspace-agreement"] = agreement
    if reason:
        reasons["subspace-agreement"] = reason
    for id in reasons:
        values[id] = None
    n_shared = int(shared.sum())
    counts = int(alive[0].sum()), int(alive[1].sum())
    return PairScores(
        values, reasons, _curve(matching.cosines, smaller), curve_alive, (n, m), counts, (n_shared / n, n_shared / m)
    )


def over_pairs(items: Sequence[Latents], *, signed: bool = True) -> dict[tuple[int, int], PairScores]:
    """Scores of every pair of members, by their indices."""
    return {(i, j): pair_scores(items[i], items[j], signed=signed) for i, j in combinations(range(len(items)), 2)}


def mean_over_pairs(scores: dict[tuple[int, int], float], n_members: int) -> tuple[float, float | None]:
    """Mean over pairs, and its standard error by leaving out one member at a time.

    Pairs that share a member are not independent, so their spread is no standard error. With theta_(-s) the mean over the pairs
    without member s: se^2 = (S - 1) / S * sum (theta_(-s) - mean)^2 (Arvesen 1969, for U-statistics). None under three members.
    """
    value = math.fsum(scores.values()) / len(scores)
    without = []
    for member in range(n_members):
        rest = [score for pair, score in scores.items() if member not in pair]
        if not rest:
            return value, None
        without.append(math.fsum(rest) / len(rest))
    mean = math.fsum(without) / n_members
    return value, math.sqrt((n_members - 1) / n_members * math.fsum((x - mean) ** 2 for x in without))


def mean_curve(curves: Sequence[Floats]) -> list[float]:
    """Mean threshold curve of several pairs."""
    return [float(share) for share in np.mean(np.stack(list(curves)), axis=0)]


def _curve(cosines: Floats, size: int) -> Floats:
    """Share of `size` whose matched cosine is over each threshold of `CURVE`."""

    return np.array([int((cosines > threshold).sum()) / size for threshold in CURVE])
