"""Scales on which the spread of seeds is alike, so that a mean, an interval and a test hold.

The standard deviation of FVU over seeds grows with FVU itself; on a log scale it does not. A mean and its t-interval of
log-normal values cover the truth in 84 % of cases in place of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Scale:
    """A monotone map and its inverse. `allows` says whether a value has an image; `falls` that the map reverses order.

    `words` is how pages name it, with the value as x.
    """

    to: Callable[[float], float]
    back: Callable[[float], float]
    allows: Callable[[float], bool]
    words: str
    falls: bool = False


def _sigmoid(y: float) -> float:
    return 1 / (1 + math.exp(-y)) if y >= 0 else math.exp(y) / (1 + math.exp(y))


IDENTITY = Scale(lambda x: x, lambda y: y, math.isfinite, "the metric's own scale")
SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "identity": IDENTITY,
        "log": Scale(math.log, math.exp, lambda x: x > 0, "log x"),
        "logit": Scale(lambda x: math.log(x / (1 - x)), _sigmoid, lambda x: 0 < x < 1, "log(x / (1 - x))"),
        # variance explained and recovered losses are 1 less something positive, and may be below 0
        "log-complement": Scale(
            lambda x: math.log1p(-x), lambda y: -math.expm1(y), lambda x: x < 1, "log(1 - x)", falls=True
        ),
    }
)


def scale_for(name: str, values: Iterable[float]) -> Scale:
    """The scale of that name; where one of the values has no image on it, or it is not known, the values' own."""
    scale = SCALES.get(name, IDENTITY)
    return scale if all(scale.allows(value) for value in values) else IDENTITY


def difference_on_own(scale: Scale, a: float, b: float) -> float:
    """What `a - b` on the scale is in the metric's own units: `back(a) - back(b)`."""
    return scale.back(a) - scale.back(b)
