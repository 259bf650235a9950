"""What is concluded of contenders at one price by one metric: pairs, verdicts, and ranks as intervals."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.base.student import t_quantile
from saebench.leaderboard.tables.ranking.moderated import ALPHA, Spread, Test, compare, moderated, step_down
from saebench.leaderboard.tables.ranking.scales import Scale, difference_on_own
from saebench.leaderboard.tables.statistics import mean, variance

MOST_SEEDS = 100
"""More are not asked for: such a pair is said to be alike."""

NO_SPREAD = "seeds that do not differ at all have no spread to judge by"


@dataclass(frozen=True)
class Sample:
    """A contender's values by seed on the scale, their moderated variance, or why it cannot be compared."""

    values: Mapping[int, float]
    spread: Spread | None = None
    refusal: str | None = None

    @property
    def estimate(self) -> float:
        """Mean over seeds, on the scale."""
        return mean([self.values[seed] for seed in sorted(self.values)])


@dataclass(frozen=True)
class Pair:
    """Two contenders compared. What has units has the metric's own.

    Attributes:
        verdict: `separated`, `tie`, or `cannot tell`.
        reason: Why it cannot be told.
        difference: a less b.
        resolvable: The smallest difference between them that so many seeds could tell.
        sigma: Standard deviation of one seed, moderated, mean of both, on the scale.
        df: Degrees of freedom of the test.
        p: Of the test, before the correction for several pairs.
        seeds: How many seeds of each would separate them, were difference and spread what they seem; None where more
            than 100.
    """

    a: str
    b: str
    verdict: str
    reason: str | None = None
    difference: float | None = None
    resolvable: float | None = None
    sigma: float | None = None
    df: float | None = None
    p: float | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Standing:
    """A rank as an interval: 1 + how many are separably better, to all less how many are separably worse.

    Attributes:
        best, worst: Of the rank; None where it is not ranked, and `reason` says why.
        ties: Contenders it does not separate from.
        compared: Contenders it was compared with.
    """

    best: int | None
    worst: int | None
    ties: tuple[str, ...] = ()
    compared: int = 0
    reason: str | None = None


def sample(values: Mapping[int, float], prior: Spread, refusal: str | None = None) -> Sample:
    """Values of a contender with their moderated variance; one seed has none."""
    if refusal is not None or not values:
        return Sample(values, None, refusal or "no value here")
    if len(values) < 2:
        return Sample(values, None, "one seed")
    own = Spread(variance([values[seed] for seed in sorted(values)]), len(values) - 1)
    return Sample(values, moderated(own, prior))


def conclude(
    samples: Mapping[str, Sample], scale: Scale, *, higher_is_better: bool
) -> tuple[dict[str, Standing], list[Pair]]:
    """Compares every two contenders at one price, with a correction for all pairs that can be tested."""
    names = sorted(samples)
    tested: list[tuple[str, str, Test]] = []
    pairs: list[Pair] = []
    for a, b in itertools.combinations(names, 2):
        one, other = samples[a], samples[b]
        if one.spread is None or other.spread is None:
            why = "; ".join(f"{name}: {found.refusal}" for name, found in ((a, one), (b, other)) if found.refusal)
            pairs.append(Pair(a, b, "cannot tell", why))
        else:
            test = compare(one.estimate, one.spread, len(one.values), other.estimate, other.spread, len(other.values))
            if test.stderr > 0:
                tested.append((a, b, test))
            else:
                pairs.append(Pair(a, b, "cannot tell", NO_SPREAD))
    ranked = [name for name in names if samples[name].spread is not None]
    compared = Counter(name for a, b, _ in tested for name in (a, b))
    better, worse = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    ties: dict[str, list[str]] = {name: [] for name in names}
    # on a falling scale what is higher there is lower in the metric's units
    up = higher_is_better != scale.falls
    apart = step_down([test.p for *_, test in tested], len(ranked))
    for (a, b, test), separated in zip(tested, apart, strict=True):
        pairs.append(_pair(a, b, samples[a], samples[b], test, len(tested), scale, separated))
        if separated:
            first, second = (a, b) if (test.difference > 0) == up else (b, a)
            better[second] += 1
            worse[first] += 1
        else:
            ties[a].append(b)
            ties[b].append(a)
    standings = {}
    for name in names:
        if name not in ranked:
            standings[name] = Standing(None, None, reason=samples[name].refusal)
        elif len(ranked) < 2:
            standings[name] = Standing(None, None, reason="no other contender to compare with here")
        elif not compared[name]:
            standings[name] = Standing(None, None, reason=NO_SPREAD)
        else:
            best, worst = 1 + better[name], len(ranked) - worse[name]
            standings[name] = Standing(best, worst, tuple(ties[name]), compared[name])
    return standings, sorted(pairs, key=lambda pair: (pair.a, pair.b))


def _pair(a: str, b: str, one: Sample, other: Sample, test: Test, n_pairs: int, scale: Scale, separated: bool) -> Pair:
    assert one.spread is not None
    assert other.spread is not None
    least = test.resolvable(n_pairs)
    middle = (one.estimate + other.estimate) / 2
    return Pair(
        a,
        b,
        "separated" if separated else "tie",
        None,
        difference_on_own(scale, one.estimate, other.estimate),
        abs(difference_on_own(scale, middle + least / 2, middle - least / 2)),
        math.sqrt((one.spread.variance + other.spread.variance) / 2),
        test.df,
        test.p,
        seeds_to_separate(test, one, other, n_pairs),
    )


def seeds_to_separate(test: Test, one: Sample, other: Sample, n_pairs: int) -> int | None:
    """Seeds of each at which the difference would be `resolvable` for certain; None beyond `MOST_SEEDS`."""
    assert one.spread is not None
    assert other.spread is not None
    both = one.spread.variance + other.spread.variance
    fewest = min(one.spread.df - len(one.values), other.spread.df - len(other.values))

    def enough(n: int) -> bool:
        quantile = t_quantile(2 * (fewest + n), 1 - ALPHA / n_pairs)
        return abs(test.difference) >= quantile * math.sqrt(both / n)

    n = 2 + bisect_left(range(2, MOST_SEEDS + 1), True, key=enough)  # more seeds only make the least difference smaller
    return n if n <= MOST_SEEDS else None


def interval(found: Sample, scale: Scale) -> tuple[float, float] | None:
    """95 % interval of one contender's mean, in the metric's units, by its moderated variance."""
    if found.spread is None or not found.values:
        return None
    half = t_quantile(found.spread.df) * math.sqrt(found.spread.variance / len(found.values))
    ends = sorted((scale.back(found.estimate - half), scale.back(found.estimate + half)))
    return ends[0], ends[1]


def pool(points: Sequence[Sequence[float]]) -> list[Spread]:
    """The variance of each set of values over seeds that has two or more."""
    return [Spread(variance(values), len(values) - 1) for values in points if len(values) >= 2]
