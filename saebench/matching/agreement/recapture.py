"""How many distinct latents do several seeds find together, and how many would there be to find: capture and recapture.

Each seed is one trapping occasion, each latent an animal, a shared pair a recapture. The extrapolated total is the
"idealised dictionary size": what ever more seeds would add up to, if `ASSUMPTIONS` held. They do not quite. Unequal
chances to be found make it too small, a threshold that keeps one feature's latents apart makes it too large: it bounds
nothing. So it is given only where it hardly depends on the threshold (`unstable`).
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
    "Latents are not equally easy to find (frequent ones are found by every seed), which makes the total too small; "
    "what the threshold wrongly keeps apart makes it too large, what chance brings over it too small. It is no bound."
)
THRESHOLDS = (0.6, 0.65, 0.7, 0.75, 0.8)
"""Where a total must agree with itself."""
STABLE_WITHIN = 1.1
"""Largest total over smallest, at these thresholds.

Measured with 3 seeds: 1.00 to 1.06 for TopK on synthetic data where SFR is 0.8 (the total's own standard error is 5 %),
1.15 to 1.3 where it is 0.4 to 0.7, over 4 on a language model's text (SFR 0.26 and 0.05).
"""
LEAST_RECAPTURED = 7
"""Latents found again at every one of these thresholds (Robson and Regier 1964: from 7 on the bias is negligible)."""
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
        by_threshold: The total at each of `THRESHOLDS`.
        unstable: Why the total says nothing; None where it hardly depends on the threshold.
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
    by_threshold: Mapping[float, float]
    unstable: str | None

    def to_json(self) -> dict[str, Any]:
        """The detail `recapture`; without total, error and interval where these say nothing."""
        stable = self.unstable is None
        return {
            "k": list(self.k),
            "distinct": list(self.rarefaction),
            "n_alive": list(self.n_alive),
            "frequencies": list(self.frequencies),
            "singletons": self.frequencies[0],
            "doubletons": self.frequencies[1],
            "estimate": self.estimate if stable else None,
            "stderr": self.stderr if stable else None,
            "low": self.low if stable else None,
            "high": self.high if stable else None,
            "by_threshold": {f"{threshold:g}": total for threshold, total in self.by_threshold.items()},
            "reason": self.unstable,
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
    seeds, n_alive = len(alive), tuple(int(side.sum()) for side in alive)

    def found_by(threshold: float) -> tuple[int, ...]:
        counts = clusters(matchings, alive, threshold=threshold)
        return tuple(int(x) for x in np.bincount(counts, minlength=seeds + 1)[1:])

    def estimated(frequencies: Sequence[int]) -> tuple[float, float]:
        if seeds == 2:
            return chapman(n_alive[0], n_alive[1], frequencies[1])
        return chao2(sum(frequencies), frequencies[0], frequencies[1], seeds)

    frequencies = found_by(threshold)
    distinct = sum(frequencies)
    total, variance = estimated(frequencies)
    low, high = _interval(distinct, total, variance, sum(n_alive))
    others = {at: found_by(at) for at in THRESHOLDS}
    by_threshold = {at: estimated(found)[0] for at, found in others.items()}
    again = {at: sum(found[1:]) for at, found in others.items()}
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
        by_threshold=by_threshold,
        unstable=unstable(by_threshold, again),
    )


def unstable(totals: Mapping[float, float], again: Mapping[float, int]) -> str | None:
    """Why a total says nothing: too few latents were found again, or it goes by the threshold.

    Args:
        totals: Total by threshold.
        again: Latents that two or more seeds found, by threshold.
    """
    strictest = max(again)
    if again[strictest] < LEAST_RECAPTURED:
        return (
            f"{again[strictest]} latents are found again at a cosine over {strictest:g}, "
            f"and a total needs {LEAST_RECAPTURED}"
        )
    low, high = min(totals.values()), max(totals.values())
    if high <= STABLE_WITHIN * low:
        return None
    return (
        f"it goes by the threshold: {low:,.0f} to {high:,.0f} latents at cosines over {min(totals):g} to "
        f"{max(totals):g}, more than a factor of {STABLE_WITHIN:g} apart"
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
