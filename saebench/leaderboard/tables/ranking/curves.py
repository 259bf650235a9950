"""Contenders as curves over the price of a code, read at one price that they share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.leaderboard.tables.statistics import mean

PRICE_TOLERANCE = 0.02
"""Largest ratio of two prices, less 1, at which they count as one: 0.003 of variance explained, where that rises by 0.1
a doubling."""
LEVEL_TOLERANCE = 0.20
"""A level is read at most this far from the price that configs aim at, where more contenders have measured that."""


def apart(a: float, b: float) -> float:
    """Ratio of the larger to the smaller price, less 1."""
    return max(a, b) / min(a, b) - 1


@dataclass(frozen=True)
class Reading:
    """A curve at a price: value by seed, what price that is measured at (mean over seeds), and how it was got.

    `way` is measured, interpolated, mixed or none.
    """

    values: Mapping[int, float]
    price: float | None
    way: str


@dataclass(frozen=True)
class Curve:
    """One contender's measured points: per init seed, (price, value) sorted by price.

    Seeds without any point are left out. `given` is how many seeds it was given: failed ones and copies count there.
    `refusal` is why it is not ranked whatever its values are.
    """

    points: Mapping[int, tuple[tuple[float, float], ...]]
    given: int = 0
    refusal: str | None = None

    def at(self, price: float) -> Reading:
        """Linear in log price between two measured points, by seed; never beyond them but for `PRICE_TOLERANCE`."""
        values, prices, ways = {}, [], set()
        for seed, points in self.points.items():
            found = _read(points, price)
            if found is not None:
                values[seed], own, way = found
                prices.append(own)
                ways.add(way)
        if not values:
            return Reading({}, None, "none")
        return Reading(values, mean(prices), ways.pop() if len(ways) == 1 else "mixed")

    def ends(self) -> list[float]:
        """Prices at which the range that its seeds have measured begins and ends."""
        if not self.points:
            return []
        most = max(len(points) for points in self.points.values())
        whole = [points for points in self.points.values() if len(points) == most]
        low, high = max(points[0][0] for points in whole), min(points[-1][0] for points in whole)
        return [low, high] if low <= high else [math.sqrt(low * high)]

    def nearest(self, price: float) -> float | None:
        """The measured price nearest to this one."""
        prices = [own for points in self.points.values() for own, _ in points]
        return min(prices, key=lambda own: apart(own, price), default=None)


def _read(points: Sequence[tuple[float, float]], price: float) -> tuple[float, float, str] | None:
    own, value = min(points, key=lambda point: apart(point[0], price))
    if apart(own, price) <= 0.005:
        return value, own, "measured"
    for (low, at_low), (high, at_high) in itertools.pairwise(points):
        if low < price < high:
            weight = math.log(price / low) / math.log(high / low)
            return (1 - weight) * at_low + weight * at_high, price, "interpolated"
    return (value, own, "measured") if apart(own, price) <= PRICE_TOLERANCE else None


def levels_of(targets: Sequence[float]) -> list[float]:
    """The distinct targets; those within 10 % of a smaller one are merged into it."""
    levels: list[float] = []
    for target in sorted(target for target in targets if target > 0):
        if not levels or apart(target, levels[-1]) > 0.10:
            levels.append(target)
    return levels


def shared_price(curves: Sequence[Curve], level: float) -> float:
    """The price near a level at which most contenders have a value for all of their seeds; of several the nearest.

    One price for all of them, so that an order of their values is an order of them.
    """
    ends = {end for curve in curves for end in curve.ends() if apart(end, level) <= LEVEL_TOLERANCE}

    def order(price: float) -> tuple[int, float, float]:
        there = sum(len(curve.at(price).values) >= max(1, len(curve.points)) for curve in curves)
        return -there, apart(price, level), price

    return min({level, *ends}, key=order)
