"""Statistics of the leaderboard, in plain float64: means and intervals over seeds, differences of two means.

The unit of replication is the training run: intervals are over init seeds. The standard error of one score (over
evaluation documents, which all contenders share) is another thing and is kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.base.student import t_quantile


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, correctly rounded sum."""
    return math.fsum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """Sample variance (n - 1); exactly 0 of equal values, whose mean may be a last bit beside them."""
    if min(values) == max(values):
        return 0.0
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
        stderr: Mean of the scores' own standard errors (over evaluation documents), or None.
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
