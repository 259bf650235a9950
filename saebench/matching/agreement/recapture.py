"""How many distinct latents do several seeds find together, and how many would there be to find: capture and recapture.

Each seed is one trapping occasion, each latent an animal, a shared pair a recapture. The extrapolated total is the
"idealised dictionary size": what ever more seeds would add up to, if `ASSUMPTIONS` held. They do not quite, which is
why it is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saebench.matching.agreement.cosines import THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.matching.result import Matching

    Bools = NDArray[np.bool_]

ASSUMPTIONS = (
    "One closed dictionary from which every seed draws its latents independently; a matched cosine over 0.7 means the "
    "same latent. "
    "Latents are not equally easy to find (frequent ones are found by every seed), so the estimate is a lower bound; "
    "what the threshold "
    "wrongly keeps apart makes it too large, what chance brings over it (sfr-null) too small."
)
_Z = 1.96


@dataclass(frozen=True)
class Recapture:
    """What capture and recapture found.

    Attributes:
        k: 1 .. S seeds. `rarefaction`: distinct latents that k of these S seeds find together, the mean over all
            subsets of k, exact.
        distinct: All S together.
        n_alive: Latents of each seed that took part.
        frequencies: `frequencies[k - 1]` latents were found by exactly k seeds.
        estimate, stderr, low, high: Extrapolated total and its log-normal 95 % interval.
        method: `chapman` for two seeds, `chao2` for more.
    """

    k: tuple[int, ...]
    rarefaction: tuple[float, ...]
    distinct: int
    n_alive: tuple[int, ...]
    frequencies: tuple[int, ...]
    estimate: float
    stderr: float
    low: float
    high: float
    method: Literal["chao2", "chapman"]

    def to_json(self) -> dict[str, Any]:
        """The detail `recapture`."""
        return {
            "k": list(self.k),
            "distinct": list(self.rarefaction),
            "n_alive": list(self.n_alive),
            "frequencies": list(self.frequencies),
            "singletons": self.frequencies[0],
            "doubletons": self.frequencies[1],
            "estimate": self.estimate,
            "stderr": self.stderr,
            "low": self.low,
            "high": self.high,
            "method": self.method,
            "assumptions": ASSUMPTIONS,
        }


def recapture(
    matchings: Mapping[tuple[int, int], Matching], alive: Sequence[Bools], *, threshold: float = THRESHOLD
) -> Recapture:
    """Distinct latents of S >= 2 seeds and the extrapolated total.

    Two seeds: Chapman 1951, N = (n1 + 1)(n2 + 1) / (m + 1) - 1 with variance (n1+1)(n2+1)(n1-m)(n2-m) / ((m+1)^2 (m+2))
    (Seber 1970). More: Chao2 in its bias-corrected form, N = D + c Q1 (Q1 - 1) / (2 (Q2 + 1)) with c = (S - 1) / S, D
    distinct latents, Q1 of them in one seed and Q2 in two (Chao 1987), variance c Q1(Q1-1) / (2(Q2+1)) + c^2 Q1 (2 Q1 -
    1)^2 / (4 (Q2+1)^2) + c^2 Q1^2 Q2 (Q1-1)^2 / (4 (Q2+1)^4) (Colwell's EstimateS, eq. 11). Interval: D + (N - D) / K
    to D + (N - D) K with K = exp(1.96 sqrt(ln(1 + var / (N - D)^2))) (Chao 1987), so it never reaches under what was
    seen.

    Args:
        matchings: One-to-one matching of the alive latents of members i < j, for every pair.
        alive: `[d_sae]` bool of each member.
        threshold: A pair is one latent where its cosine is over this.
    """
    seeds, counts = len(alive), clusters(matchings, alive, threshold=threshold)
    frequencies = tuple(int(x) for x in np.bincount(counts, minlength=seeds + 1)[1:])
    n_alive = tuple(int(side.sum()) for side in alive)
    distinct = len(counts)
    if seeds == 2:
        total, variance = chapman(n_alive[0], n_alive[1], frequencies[1])
    else:
        total, variance = chao2(distinct, frequencies[0], frequencies[1], seeds)
    low, high = _interval(distinct, total, variance, sum(n_alive))
    return Recapture(
        k=tuple(range(1, seeds + 1)),
        rarefaction=tuple(rarefaction(frequencies)),
        distinct=distinct,
        n_alive=n_alive,
        frequencies=frequencies,
        estimate=total,
        stderr=math.sqrt(variance),
        low=low,
        high=high,
        method="chapman" if seeds == 2 else "chao2",
    )


def clusters(
    matchings: Mapping[tuple[int, int], Matching], alive: Sequence[Bools], *, threshold: float = THRESHOLD
) -> NDArray[np.int64]:
    """`[distinct]`: how many members have each distinct latent.

    Connected components would chain unlike latents of one member together. So pairs over the threshold are taken in
    falling order of cosine (ties: by member, then latent), and two clusters are joined only where they have no member
    in common (greedy agglomeration under a cannot-link constraint). A cluster holds at most one latent of each member.
    """
    sizes = [len(side) for side in alive]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    pairs = sorted(matchings)
    ends = [(start[i] + matchings[i, j].rows, start[j] + matchings[i, j].columns) for i, j in pairs]
    cosines = np.concatenate([matchings[pair].cosines for pair in pairs])
    lefts, rights = (np.concatenate([end[side] for end in ends]) for side in (0, 1))
    over = cosines > threshold
    order = np.argsort(-cosines[over], kind="stable")

    root = list(range(int(start[-1])))
    seen_in = [1 << member for member, size in enumerate(sizes) for _ in range(size)]  # members as bits

    def find(x: int) -> int:
        while root[x] != x:
            root[x] = root[root[x]]
            x = root[x]
        return x

    for left, right in zip(lefts[over][order].tolist(), rights[over][order].tolist(), strict=True):
        a, b = find(left), find(right)
        if not seen_in[a] & seen_in[b]:
            root[b] = a
            seen_in[a] |= seen_in[b]
    living = np.concatenate(alive)
    return np.array([seen_in[x].bit_count() for x in range(len(root)) if living[x] and root[x] == x], dtype=np.int64)


def rarefaction(frequencies: Sequence[int]) -> list[float]:
    """Distinct latents that k of S seeds find, k = 1 ..

    S, the mean over all subsets of k: sum_f Q_f (1 - C(S - f, k) / C(S, k)).
    """
    seeds = len(frequencies)
    return [
        sum(count * (math.comb(seeds, k) - math.comb(seeds - f, k)) for f, count in enumerate(frequencies, start=1))
        / math.comb(seeds, k)
        for k in range(1, seeds + 1)
    ]


def chapman(n_first: int, n_second: int, both: int) -> tuple[float, float]:
    """Total and its variance from two seeds that found `n_first` and `n_second` latents, `both` of them in common."""
    total = (n_first + 1) * (n_second + 1) / (both + 1) - 1
    variance = (n_first + 1) * (n_second + 1) * (n_first - both) * (n_second - both) / ((both + 1) ** 2 * (both + 2))
    return total, variance


def chao2(distinct: int, once: int, twice: int, seeds: int) -> tuple[float, float]:
    """Total and its variance from `distinct` latents of which `once` were found by one seed and `twice` by two."""
    c = (seeds - 1) / seeds
    unseen = c * once * (once - 1) / (2 * (twice + 1))
    variance = (
        unseen
        + c**2 * once * (2 * once - 1) ** 2 / (4 * (twice + 1) ** 2)
        + c**2 * once**2 * twice * (once - 1) ** 2 / (4 * (twice + 1) ** 4)
    )
    return distinct + unseen, variance


def _interval(distinct: int, total: float, variance: float, incidences: int) -> tuple[float, float]:
    unseen = total - distinct
    if unseen > 0:
        factor = math.exp(_Z * math.sqrt(math.log1p(variance / unseen**2)))
        return distinct + unseen / factor, distinct + unseen * factor
    if distinct == 0:
        return 0.0, 0.0
    # nothing points at unseen latents: upper end of EstimateS for that case (eq. 14), from the mean number of finds of
    # a latent; the lower end is what was seen, so that the estimate lies within
    missed = math.exp(-incidences / distinct)
    centre = distinct / (1 - missed)
    half = _Z * math.sqrt(distinct * missed * (1 - missed)) / (1 - missed)
    return float(distinct), centre + half
