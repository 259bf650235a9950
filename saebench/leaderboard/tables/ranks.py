"""Ranks at matched sparsity: contenders as curves over the price of a code, compared level by level."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saebench.leaderboard.names import natural
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.ranking.curves import (
    LEVEL_TOLERANCE,
    PRICE_TOLERANCE,
    Curve,
    Reading,
    apart,
    levels_of,
    shared_price,
)
from saebench.leaderboard.tables.ranking.moderated import Spread, prior_of
from saebench.leaderboard.tables.ranking.scales import Scale, scale_for
from saebench.leaderboard.tables.ranking.verdicts import Pair, Sample, Standing, conclude, interval, pool, sample
from saebench.leaderboard.tables.row import Row, RowStanding
from saebench.leaderboard.tables.statistics import Estimate, over_seeds

PRIMARY = "variance-explained"
"""The metric whose rank is in the main table."""
PRICE, L0 = "values-per-token", "l0"
"""What a code costs: L0 and declared side values; of records without it L0 alone."""


@dataclass(frozen=True)
class Ranked(Estimate):
    """A contender at a level: its value, the price that belongs to it, how it was got, and its standing.

    `value` is the mean over seeds on the metric's scale, `half` half of its interval there, both in the metric's units.
    """

    l0: float | None
    way: str
    standing: Standing


@dataclass(frozen=True)
class Ranking:
    """Contenders at one level by one metric.

    Attributes:
        scale: On which they are compared, in words.
        prior_df: Degrees of freedom that the variances of all rows lend to each.
        resolvable: A difference that half of the pairs could tell.
    """

    direction: str
    contenders: Mapping[str, Ranked]
    pairs: tuple[Pair, ...]
    resolvable: float | None
    scale: str
    prior_df: float


@dataclass(frozen=True)
class Level:
    """One sparsity level: rankings by metric, all contenders in order, and those that have a value at it.

    `l0` is what configs aim at, `price` where contenders are read.
    """

    l0: float
    price: float
    metrics: Mapping[str, Ranking]
    order: tuple[str, ...]
    present: tuple[str, ...]
    several: bool


def price_of(row: Row) -> Mapping[str, float]:
    """Values of a code, by seed."""
    metric = row.metrics.get(PRICE) or row.metrics.get(L0)
    return {} if metric is None else metric.seeds


def curve_families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that make one curve over the price: one entry's points.

    Points at one price (a sweep of something else) are curves of their own.
    """
    by_entry: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.price > 0:
            by_entry[row.entry + (f" d{row.data_seed}" if row.data_seed else "")].append(row)
    families: dict[str, list[Row]] = {}
    for name, members in by_entry.items():
        ordered = sorted(members, key=lambda row: row.price)
        if all(apart(low.price, high.price) > PRICE_TOLERANCE for low, high in itertools.pairwise(ordered)):
            families[name] = ordered
        else:
            families.update({row.label: [row] for row in ordered})
    return dict(sorted(families.items(), key=lambda item: natural(item[0])))


def _curve(rows: Sequence[Row], metric: str) -> Curve:
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if metric in row.metrics:
            prices, values = price_of(row), row.metrics[metric].seeds
            for seed in sorted(prices.keys() & values.keys()):
                if prices[seed] > 0 and int(seed) not in row.copies:
                    points[int(seed)].append((prices[seed], values[seed]))
    given = max((len(row.planned_seeds) for row in rows), default=0)
    refusal = next((row.unranked for row in rows if row.unranked), None)
    return Curve({seed: tuple(sorted(found)) for seed, found in points.items()}, given, refusal)


def rank_levels(
    rows: Sequence[Row], columns: Sequence[TableColumn], mixed: Mapping[str, Sequence[str]]
) -> tuple[tuple[Level, ...], dict[str, RowStanding]]:
    """Ranks of contenders at each sparsity level by each metric that ranks; standings by the primary one, by row id.

    The levels are the L0s that configs aim at; without any, the prices of the first contender. With `mixed` metric
    versions nothing is ranked and every standing says so.
    """
    families = curve_families(rows)
    refusal = _refusal(mixed)
    targets = [row.expected_l0 for row in rows if row.expected_l0]
    if not targets:
        targets = [row.price for row in next(iter(families.values()), [])]
    ranked = sorted((column for column in columns if column.ranks), key=lambda column: column.id != PRIMARY)
    by_metric = {
        column.id: {name: curve for name, members in families.items() if (curve := _curve(members, column.id)).points}
        for column in ranked
    }
    levels = []
    for l0 in levels_of(targets):
        first = next((curves for curves in by_metric.values() if curves), {})
        price = shared_price(list(first.values()), l0)
        metrics = {
            column.id: ranking(by_metric[column.id], price, column.direction, refusal, column.scale)
            for column in ranked
            if by_metric[column.id]
        }
        if metrics:
            order = _order(metrics)
            near = {name for found in metrics.values() for name, item in found.contenders.items() if item.l0}
            present = tuple(name for name in order if name in near)
            levels.append(Level(l0, price, metrics, tuple(order), present, len(present) > 1))
    family_of = {row.id: name for name, members in families.items() for row in members}
    standings = {row.id: _standing(row, family_of.get(row.id), levels) for row in rows}
    return tuple(levels), standings


def _refusal(mixed: Mapping[str, Sequence[str]]) -> str | None:
    versions = ", ".join(f"{spec} {' and '.join(found)}" for spec, found in mixed.items())
    return f"metric versions are mixed: {versions}" if mixed else None


def ranking(
    curves: Mapping[str, Curve], price: float, direction: str, refusal: str | None = None, scale: str = "identity"
) -> Ranking:
    """Contenders at one price by one metric; `refusal` is why none of them is ranked.

    Variances are moderated by those of all measured points of all curves.
    """
    on = scale_for(
        scale, (value for curve in curves.values() for points in curve.points.values() for _, value in points)
    )
    moved = {name: _moved(curve, on) for name, curve in curves.items()}
    prior = prior_of([spread for curve in moved.values() for spread in _spreads(curve)])
    readings = {name: curve.at(price) for name, curve in moved.items()}
    samples = {
        name: sample(found.values, prior, refusal or _why_not(curves[name], found, price))
        for name, found in readings.items()
    }
    standings, pairs = conclude(samples, on, higher_is_better=direction != "lower")
    contenders = {
        name: Ranked(
            **vars(_estimate(samples[name], on, curves[name], price)),
            l0=found.price,
            way="interpolated" if found.way == "mixed" else found.way,
            standing=standings[name],
        )
        for name, found in readings.items()
    }
    least = sorted(pair.resolvable for pair in pairs if pair.resolvable is not None)
    half = least[(len(least) - 1) // 2] if least else None
    return Ranking(direction, contenders, tuple(pairs), half, on.words, prior.df)


def _moved(curve: Curve, scale: Scale) -> Curve:
    points = {seed: tuple((price, scale.to(value)) for price, value in own) for seed, own in curve.points.items()}
    return replace(curve, points=points)


def _spreads(curve: Curve) -> list[Spread]:
    """The variance over seeds at each place along a curve; a seed that lost a point is not in them."""
    most = max(len(points) for points in curve.points.values())
    whole = [points for points in curve.points.values() if len(points) == most]
    return pool([[points[place][1] for points in whole] for place in range(most)])


def _why_not(curve: Curve, found: Reading, price: float) -> str | None:
    """Why a contender is not compared at a price, or None."""
    if curve.refusal:
        return curve.refusal
    nearest = curve.nearest(price)
    if not found.values:
        off = "" if nearest is None else f": the nearest is {nearest:.4g}, {100 * apart(nearest, price):.3g} % from it"
        return f"nothing measured at L0 {price:.4g}{off}. Sweep its sparsity to compare it"
    given = max(curve.given, len(curve.points))
    most = max(len(points) for points in curve.points.values())
    if any(len(points) == most for seed, points in curve.points.items() if seed not in found.values):
        return f"{len(found.values)} of {given} seeds have a value at L0 {price:.4g}. Sweep its sparsity to compare it"
    if len(found.values) < given:
        return f"{len(found.values)} of {given} seeds"
    return None


def _estimate(found: Sample, scale: Scale, curve: Curve, price: float) -> Estimate:
    """Mean over seeds on the scale, and half of its interval, in the metric's units."""
    if not found.values:
        return over_seeds({}, reason=_why_not(curve, curve.at(price), price))
    plain = over_seeds({seed: scale.back(value) for seed, value in found.values.items()})
    ends = interval(found, scale)
    return replace(plain, value=scale.back(found.estimate), half=(ends[1] - ends[0]) / 2 if ends else None)


def _order(metrics: Mapping[str, Ranking]) -> list[str]:
    first = metrics.get(PRIMARY) or next(iter(metrics.values()))
    return order_of(first, {name for metric in metrics.values() for name in metric.contenders})


def order_of(primary: Ranking, names: Collection[str] | None = None) -> list[str]:
    """Contenders (or `names`) by their values in one ranking, those that are not ranked last; then by name."""
    sign = 1.0 if primary.direction == "lower" else -1.0

    def key(name: str) -> tuple[Any, ...]:
        found = primary.contenders.get(name)
        if found is None or found.value is None:
            return (2, 0.0, natural(name))
        return (int(found.standing.best is None), sign * found.value, natural(name))

    return sorted(primary.contenders if names is None else names, key=key)


def _standing(row: Row, family: str | None, levels: Sequence[Level]) -> RowStanding:
    """The row's rank by the primary metric at the level that it belongs to: the nearest, when within tolerance."""
    if family is None:
        return RowStanding(None, None, reason="no L0 measured")
    near = [level for level in levels if apart(level.l0, row.price) <= LEVEL_TOLERANCE]
    level = min(near, key=lambda item: abs(item.l0 - row.price), default=None)
    found = level.metrics[PRIMARY].contenders.get(family) if level and PRIMARY in level.metrics else None
    if level is None or found is None:
        return RowStanding(None, None, reason="its L0 is at no level where contenders are compared")
    return RowStanding(**vars(found.standing), level=level.l0)
