"""Which latents come back in another seed, and which kind they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.agreement.cosines import THRESHOLD, Latents
from saebench.matching.agreement.pair import PairScores, jackknife

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

DENSITY_EDGES = tuple(i / 2 for i in range(-12, 1))
"""log10 of density: two bins a decade from 1e-6 to 1."""
SHARE_EDGES = tuple(i / 2 for i in range(-14, 1))
"""log10 of the share of explained variance: two bins a decade from 1e-7 to 1."""


@dataclass(frozen=True, eq=False)
class Reappearance:
    """One member's latents in each of the S members (its own row is empty).

    Attributes:
        hits: `[S, d_sae]` bool: alive, and matched there with a cosine over 0.7 among alive latents.
        cosines: `[S, d_sae]` matched cosine among alive latents; 0 where unmatched or dead.
        dead_hits: `[S, d_sae]` bool for dead latents: matched so when no latent is dropped.
        alive: `[d_sae]` bool.
    """

    hits: Bools
    cosines: Floats
    dead_hits: Bools
    alive: Bools

    @property
    def share(self) -> Floats:
        """`[d_sae]`: the share of the other members in which each latent comes back; 0 for dead ones."""
        return np.asarray(self.hits.sum(0) / (len(self.hits) - 1))

    @property
    def matched_cosine(self) -> Floats:
        """`[d_sae]`: mean matched cosine over the other members."""
        return np.asarray(self.cosines.sum(0) / (len(self.hits) - 1))


def reappearances(
    pairs: Mapping[tuple[int, int], PairScores], items: Sequence[Latents], *, threshold: float = THRESHOLD
) -> list[Reappearance]:
    """Of every member, from the scores of all pairs."""
    members = len(items)
    alive = [item.alive for item in items]
    hits, dead_hits = ([np.zeros((members, len(side)), dtype=bool) for side in alive] for _ in range(2))
    cosines = [np.zeros((members, len(side))) for side in alive]
    for (i, j), scores in pairs.items():
        for here, there, side in ((i, j, "rows"), (j, i, "columns")):
            found, every = scores.matching_alive, scores.matching
            hits[here][there, getattr(found, side)] = found.cosines > threshold
            cosines[here][there, getattr(found, side)] = found.cosines
            dead_hits[here][there, getattr(every, side)] = every.cosines > threshold
            dead_hits[here][there] &= ~alive[here]
    return [Reappearance(*parts) for parts in zip(hits, cosines, dead_hits, alive, strict=True)]


def counts_by_share(found: Sequence[Reappearance]) -> list[int]:
    """Alive latents of all members that come back in 0, 1, .. S - 1 of the other members."""
    times = np.concatenate([member.hits.sum(0)[member.alive] for member in found])
    return [int(count) for count in np.bincount(times, minlength=len(found))]


def binned(found: Sequence[Reappearance], quantity: Sequence[Floats], edges: Sequence[float]) -> dict[str, Any]:
    """Mean reappearance of alive latents by a quantity of theirs, in bins of its log10.

    A value under the first edge counts in the first bin and one over the last in the last; values that are not positive
    have their own bin. The error of a mean leaves out one member at a time, with its latents and as the other seed of
    the rest: latents of one seed are not independent. None where under three members, or where a bin is empty without
    one of them.

    Args:
        found: Of `reappearances`.
        quantity: `[d_sae]` of each member.
        edges: log10 edges, rising.

    Returns:
        `edges`, `n`, `mean`, `stderr` a bin; `not_positive` and `dead` with `n` and `mean`. Means are None where n is
        0.
    """
    bins, members = len(edges) - 1, len(found)
    # one more bin for what has no logarithm; sums of hits by (member, other, bin)
    sums, counts = np.zeros((members, members, bins + 1)), np.zeros((members, bins + 1))
    for member, (latents, values) in enumerate(zip(found, quantity, strict=True)):
        alive_values = np.asarray(values, dtype=np.float64)[latents.alive]
        positive = alive_values > 0
        logs = np.log10(alive_values, where=positive, out=np.zeros(len(alive_values)))
        which = np.where(positive, np.clip(np.searchsorted(edges, logs, side="right") - 1, 0, bins - 1), bins)
        counts[member] = np.bincount(which, minlength=bins + 1)
        for other in range(members):
            sums[member, other] = np.bincount(which, latents.hits[other][latents.alive], minlength=bins + 1)
    means = [_mean(sums, counts, list(range(members)), at) for at in range(bins + 1)]
    n = [int(count) for count in counts.sum(0)]
    dead = [latents.dead_hits.sum(0)[~latents.alive] / (members - 1) for latents in found]
    n_dead = sum(len(shares) for shares in dead)
    return {
        "edges": list(edges),
        "n": n[:-1],
        "mean": means[:-1],
        "stderr": [_error(sums, counts, at) for at in range(bins)],
        "not_positive": {"n": n[-1], "mean": means[-1]},
        "dead": {"n": n_dead, "mean": math.fsum(np.concatenate(dead)) / n_dead if n_dead else None},
    }


def _mean(sums: Floats, counts: Floats, members: list[int], at: int) -> float | None:
    n = float(counts[members, at].sum())
    return float(sums[np.ix_(members, members)][:, :, at].sum()) / ((len(members) - 1) * n) if n else None


def _error(sums: Floats, counts: Floats, at: int) -> float | None:
    members = range(len(counts))
    if len(members) < 3:
        return None
    without = [_mean(sums, counts, [member for member in members if member != left], at) for left in members]
    known = [mean for mean in without if mean is not None]
    return jackknife(known) if len(known) == len(members) else None
