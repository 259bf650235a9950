"""Statistics of the leaderboard, in plain float64: intervals over seeds, pairwise intervals, ranks, matched sparsity.

The unit of replication is the training run: intervals are over init seeds. The standard error of one score (over
evaluation sequences, which all contenders share) is another thing and is kept apart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.base.student import t_quantile

L0_TOLERANCE = 0.10
"""Largest ratio of two L0s, less 1, at which a score is taken for the level that its own curve does not reach."""
LEVEL_TOLERANCE = 0.20
"""A pair may be compared at an L0 this far from the level, where the two measured ranges overlap only there."""


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, correctly rounded sum."""
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Sample variance (n - 1)."""
    centre = mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1)


def jackknife_half(stderr: float | None, seeds: int) -> float | None:
    """Half-width of the 95 % t-interval from a jackknife standard error over `seeds` trainings; None without one."""
    return None if stderr is None or seeds < 2 else t_quantile(seeds - 1) * stderr


@dataclass(frozen=True)
class Estimate:
    """A metric over init seeds.

    Attributes:
        value: Mean over seeds, or None.
        half: Half-width of the 95 % t-interval of that mean; None with fewer than two seeds.
        n: Seeds with a value.
        sd: Standard deviation over seeds; None with fewer than two.
        stderr: Mean of the scores' own standard errors (over evaluation sequences), or None.
        seeds: Value by init seed.
        reason: Why `value` is None.
    """

    value: float | None
    half: float | None
    n: int
    sd: float | None
    stderr: float | None
    seeds: Mapping[str, float]
    reason: str | None


@dataclass(frozen=True)
class MetricCell(Estimate):
    """A metric of one row over its seeds, or of the group of its seeds.

    Attributes:
        samples: Tokens (of a group: pairs) that one value was computed from.
        on: The evaluation dataset.
        family: The metric's family, or `other`.
    """

    samples: int
    unit: str | None
    direction: str | None
    on: str | None
    family: str
    description: str


def over_seeds(values: Mapping[int, float], *, stderrs: Sequence[float] = (), reason: str | None = None) -> Estimate:
    """Mean and 95 % t-interval over init seeds: mean ± t(n-1) s / sqrt(n). One seed has a value and no interval.

    Args:
        values: Finite value by seed.
        stderrs: The scores' own standard errors; their mean is passed on.
        reason: Why there is no value, where there is none.
    """
    if not values:
        return Estimate(None, None, 0, None, None, {}, reason or "not measured")
    numbers = [values[seed] for seed in sorted(values)]
    stderr = mean(stderrs) if stderrs else None
    seeds = {str(seed): values[seed] for seed in sorted(values)}
    n = len(numbers)
    if n == 1:
        return Estimate(numbers[0], None, 1, None, stderr, seeds, None)
    sd = math.sqrt(variance(numbers))
    return Estimate(mean(numbers), t_quantile(n - 1) * sd / math.sqrt(n), n, sd, stderr, seeds, None)


@dataclass(frozen=True)
class PairInterval:
    """95 % interval of mean(a) - mean(b). `separated` when it leaves out 0. `method` is paired, welch or none."""

    difference: float
    half: float | None
    df: float | None
    method: str

    @property
    def separated(self) -> bool:
        """Whether the two differ as far as these seeds can tell."""
        return self.half is not None and abs(self.difference) > self.half


def compare_seeds(a: Mapping[int, float], b: Mapping[int, float]) -> PairInterval:
    """Interval of the difference of two means over seeds.

    Paired by seed (t on the differences, n - 1 degrees of freedom) when both have the same seeds, two or more: equal
    seeds mean equal initial draws and equal data order. Else Welch's t with Satterthwaite's degrees of freedom. With
    one seed on a side there is no interval and nothing separates.
    """
    left, right = [a[seed] for seed in sorted(a)], [b[seed] for seed in sorted(b)]
    difference = mean(left) - mean(right)
    if a.keys() == b.keys() and len(a) >= 2:
        differences = [a[seed] - b[seed] for seed in sorted(a)]
        half = t_quantile(len(differences) - 1) * math.sqrt(variance(differences) / len(differences))
        return PairInterval(mean(differences), half, float(len(differences) - 1), "paired")
    if len(left) < 2 or len(right) < 2:
        return PairInterval(difference, None, None, "none")
    va, vb = variance(left) / len(left), variance(right) / len(right)
    if va + vb == 0:
        return PairInterval(difference, 0.0, float(len(left) + len(right) - 2), "welch")
    share = va / (va + vb)  # not squares of variances: these may be too small or too large for a float
    df = 1 / (share**2 / (len(left) - 1) + (1 - share) ** 2 / (len(right) - 1))
    return PairInterval(difference, t_quantile(df) * math.sqrt(va + vb), df, "welch")


@dataclass(frozen=True)
class Curve:
    """One contender's measured points: per init seed, (L0, value) sorted by L0.

    Seeds without any point are left out.
    """

    points: Mapping[int, tuple[tuple[float, float], ...]]

    @property
    def span(self) -> tuple[float, float]:
        """L0 range that all seeds have measured: (largest of the minima, smallest of the maxima).

        A seed that lost a point (a cell that failed) does not narrow it. Seeds of a single point each share no range;
        the geometric mean of the two ends is taken for both.
        """
        most = max(len(points) for points in self.points.values())
        whole = [points for points in self.points.values() if len(points) == most]
        low, high = max(points[0][0] for points in whole), min(points[-1][0] for points in whole)
        return (low, high) if low <= high else (math.sqrt(low * high), math.sqrt(low * high))

    def nearest(self, l0: float) -> float:
        """Mean over seeds of the measured L0 nearest to `l0`."""
        near = [min(points, key=lambda point: abs(math.log(point[0] / l0)))[0] for points in self.points.values()]
        return mean([own for own in near if abs(math.log(own / l0)) <= math.log1p(L0_TOLERANCE)])

    def values_near(self, level: float) -> tuple[dict[int, float], float, str]:
        """Values by seed that are taken for this curve at `level`, the L0 they belong to, and how they were got."""
        values, way = self.at(level)
        if way == "near":
            return values, self.nearest(level), "measured"
        if way != "none":
            return values, level, "interpolated" if way == "mixed" else way
        moved = min(max(level, self.span[0]), self.span[1])
        if abs(math.log(moved / level)) > math.log1p(LEVEL_TOLERANCE):
            return {}, level, "none"
        values, way = self.at(moved)
        return values, self.nearest(moved) if values else level, "measured" if values else "none"

    def at(self, l0: float) -> tuple[dict[int, float], str]:
        """Value by seed at `l0`, and how it was got: measured, interpolated, near (within tolerance), mixed or none.

        Linear in log L0 between two measured points. Never beyond them: within `L0_TOLERANCE` of an end the end's own
        value is taken, further out the seed has no value and is left out.
        """
        values, ways = {}, set()
        for seed, points in self.points.items():
            value, way = _interpolate(points, l0)
            if value is not None:
                values[seed] = value
                ways.add(way)
        if not values:
            return {}, "none"
        return values, ways.pop() if len(ways) == 1 else "mixed"


def _interpolate(points: Sequence[tuple[float, float]], l0: float) -> tuple[float | None, str]:
    for own, value in points:
        if abs(math.log(own / l0)) < 0.005:
            return value, "measured"
    for (low, at_low), (high, at_high) in itertools.pairwise(points):
        if low < l0 < high:
            weight = math.log(l0 / low) / math.log(high / low)
            return (1 - weight) * at_low + weight * at_high, "interpolated"
    own, value = min(points, key=lambda point: abs(math.log(point[0] / l0)))
    return (value, "near") if abs(math.log(own / l0)) <= math.log1p(L0_TOLERANCE) else (None, "none")


def matched_l0(a: Curve, b: Curve, level: float) -> float:
    """L0 at which a pair is compared: the level, or the nearest L0 that both have measured if that is near enough."""
    low, high = max(a.span[0], b.span[0]), min(a.span[1], b.span[1])
    if low > high:
        return level
    moved = min(max(level, low), high)
    return moved if abs(math.log(moved / level)) <= math.log1p(LEVEL_TOLERANCE) else level


@dataclass(frozen=True)
class Pair:
    """Two contenders of one level compared at matched L0. `interval` is None where no common L0 was measured."""

    a: str
    b: str
    l0: float
    interval: PairInterval | None


@dataclass(frozen=True)
class Standing:
    """Rank of one contender at one level: 1 + the number of contenders that are better beyond the interval.

    Attributes:
        rank: None where it cannot be ranked; `reason` says why.
        ties: Contenders it does not separate from.
        compared: Contenders it was compared with.
    """

    rank: int | None
    ties: tuple[str, ...]
    compared: int = 0
    reason: str | None = None


def rank_level(
    curves: Mapping[str, Curve], level: float, *, higher_is_better: bool
) -> tuple[dict[str, Standing], list[Pair]]:
    """Ranks contenders at one sparsity level from pairwise intervals at matched L0.

    Every contender is compared with every other. A contender that shares no measured L0 near the level with any other,
    or has a single seed, is not ranked. Intervals are per pair (95 %), not corrected for the number of pairs.
    """
    names = sorted(curves)
    pairs = []
    better: dict[str, int] = dict.fromkeys(names, 0)
    ties: dict[str, list[str]] = {name: [] for name in names}
    compared: dict[str, int] = dict.fromkeys(names, 0)
    reachable = {name: bool(curves[name].at(level)[0]) for name in names}
    for index, a in enumerate(names):
        for b in names[index + 1 :]:
            l0 = matched_l0(curves[a], curves[b], level)
            left, right = curves[a].at(l0)[0], curves[b].at(l0)[0]
            if not left or not right:
                pairs.append(Pair(a, b, l0, None))
                continue
            reachable[a] = reachable[b] = True
            interval = compare_seeds(left, right)
            pairs.append(Pair(a, b, l0, interval))
            if interval.half is None:
                continue
            compared[a] += 1
            compared[b] += 1
            if not interval.separated:
                ties[a].append(b)
                ties[b].append(a)
            else:
                a_wins = (interval.difference > 0) == higher_is_better
                better[b if a_wins else a] += 1
    standings = {}
    for name in names:
        if compared[name]:
            standings[name] = Standing(1 + better[name], tuple(ties[name]), compared[name])
        elif len(curves[name].points) < 2:
            standings[name] = Standing(None, (), 0, "one seed: no interval, no rank")
        elif not reachable[name]:
            standings[name] = Standing(None, (), 0, f"no L0 measured near {level:g}")
        else:
            standings[name] = Standing(None, (), 0, "no other contender to compare with here")
    return standings, pairs


def sparsity_levels(targets: Sequence[float]) -> list[float]:
    """The distinct targets; those within `L0_TOLERANCE` of a smaller one are merged into it."""
    levels: list[float] = []
    for target in sorted(target for target in targets if target > 0):
        if not levels or target > levels[-1] * (1 + L0_TOLERANCE):
            levels.append(target)
    return levels
