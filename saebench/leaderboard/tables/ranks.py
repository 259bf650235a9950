"""Ranks at matched sparsity: contenders as curves over L0, compared level by level."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.leaderboard.names import natural
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.row import Row, RowStanding
from saebench.leaderboard.tables.statistics import (
    LEVEL_TOLERANCE,
    Curve,
    Estimate,
    Pair,
    Standing,
    over_seeds,
    rank_level,
    sparsity_levels,
)

PRIMARY = "variance-explained"
"""The metric whose rank is in the main table."""


@dataclass(frozen=True)
class Ranked(Estimate):
    """A contender at a level: its value, the L0 that belongs to it, how it was got, and its standing."""

    l0: float | None
    way: str
    standing: Standing


@dataclass(frozen=True)
class Ranking:
    """Contenders at one level by one metric; half of the pairs can tell apart a difference of `resolvable`."""

    direction: str
    contenders: Mapping[str, Ranked]
    pairs: tuple[Pair, ...]
    resolvable: float | None


@dataclass(frozen=True)
class Level:
    """One sparsity level: rankings by metric, all contenders in order, and those that have an L0 near it."""

    l0: float
    metrics: Mapping[str, Ranking]
    order: tuple[str, ...]
    present: tuple[str, ...]
    several: bool


def curve_families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that make one curve over L0: one entry's points.

    Points at one L0 (a sweep of something else) are curves of their own.
    """
    by_entry: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.l0 > 0:
            by_entry[row.entry + (f" d{row.data_seed}" if row.data_seed else "")].append(row)
    families: dict[str, list[Row]] = {}
    for name, members in by_entry.items():
        ordered = sorted(members, key=lambda row: row.l0)
        if all(high.l0 > low.l0 * 1.02 for low, high in itertools.pairwise(ordered)):
            families[name] = ordered
        else:
            families.update({row.label: [row] for row in ordered})
    return dict(sorted(families.items(), key=lambda item: natural(item[0])))


def _curve(rows: Sequence[Row], metric: str) -> Curve:
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if metric in row.metrics:
            l0, values = row.metrics["l0"].seeds, row.metrics[metric].seeds
            for seed in sorted(l0.keys() & values.keys()):
                if l0[seed] > 0:
                    points[int(seed)].append((l0[seed], values[seed]))
    return Curve({seed: tuple(sorted(found)) for seed, found in points.items()})


def rank_levels(
    rows: Sequence[Row], columns: Sequence[TableColumn], mixed: Mapping[str, Sequence[str]]
) -> tuple[tuple[Level, ...], dict[str, RowStanding]]:
    """Ranks of contenders at each sparsity level by each metric that ranks; standings by the primary one, by row id.

    The levels are the L0s that configs aim at; without any, the measured L0s of the first contender. With `mixed`
    metric versions nothing is ranked and every standing says so.
    """
    families = curve_families(rows)
    refusal = _refusal(mixed)
    targets = [row.expected_l0 for row in rows if row.expected_l0]
    if not targets:
        targets = [row.l0 for row in next(iter(families.values()), [])]
    ranked = sorted((column for column in columns if column.ranks), key=lambda column: column.id != PRIMARY)
    levels = []
    for l0 in sparsity_levels(targets):
        metrics = {}
        for column in ranked:
            curves = {name: curve for name, members in families.items() if (curve := _curve(members, column.id)).points}
            if curves:
                metrics[column.id] = ranking(curves, l0, column.direction, refusal)
        if metrics:
            order = _order(metrics)
            near = {name for found in metrics.values() for name, item in found.contenders.items() if item.l0}
            present = tuple(name for name in order if name in near)
            levels.append(Level(l0, metrics, tuple(order), present, len(present) > 1))
    family_of = {row.id: name for name, members in families.items() for row in members}
    standings = {row.id: _standing(row, family_of.get(row.id), levels) for row in rows}
    return tuple(levels), standings


def _refusal(mixed: Mapping[str, Sequence[str]]) -> str | None:
    versions = ", ".join(f"{spec} {' and '.join(found)}" for spec, found in mixed.items())
    return f"metric versions are mixed: {versions}" if mixed else None


def ranking(curves: Mapping[str, Curve], level: float, direction: str, refusal: str | None = None) -> Ranking:
    """Contenders at one level by one metric; `refusal` is why none of them is ranked."""
    standings, pairs = rank_level(curves, level, higher_is_better=direction != "lower")
    contenders = {}
    for name, curve in curves.items():
        values, shown_at, way = curve.values_near(level)
        standing = Standing(None, (), 0, refusal) if refusal else standings[name]
        estimate = over_seeds(values, reason=f"no L0 measured near {level:g}")
        contenders[name] = Ranked(**vars(estimate), l0=shown_at if values else None, way=way, standing=standing)
    halves = sorted(
        pair.interval.half for pair in pairs if pair.interval is not None and pair.interval.half is not None
    )
    return Ranking(direction, contenders, tuple(pairs), halves[(len(halves) - 1) // 2] if halves else None)


def _order(metrics: Mapping[str, Ranking]) -> list[str]:
    first = metrics.get(PRIMARY) or next(iter(metrics.values()))
    return order_of(first, {name for metric in metrics.values() for name in metric.contenders})


def order_of(primary: Ranking, names: Collection[str] | None = None) -> list[str]:
    """Contenders (or `names`) by rank in one ranking, then by value, then by name."""
    sign = 1.0 if primary.direction == "lower" else -1.0

    def key(name: str) -> tuple[Any, ...]:
        found = primary.contenders.get(name)
        if found is None or found.value is None:
            return (10**6, 0.0, natural(name))
        return (found.standing.rank or 10**5, sign * found.value, natural(name))

    return sorted(primary.contenders if names is None else names, key=key)


def _standing(row: Row, family: str | None, levels: Sequence[Level]) -> RowStanding:
    """The row's rank by the primary metric at the level that it belongs to: the nearest, when within tolerance."""
    if family is None:
        return RowStanding(None, (), 0, "no L0 measured")
    near = [level for level in levels if max(level.l0, row.l0) <= min(level.l0, row.l0) * (1 + LEVEL_TOLERANCE)]
    level = min(near, key=lambda item: abs(item.l0 - row.l0), default=None)
    found = level.metrics[PRIMARY].contenders.get(family) if level and PRIMARY in level.metrics else None
    if level is None or found is None:
        return RowStanding(None, (), 0, "its L0 is at no level where contenders are compared")
    return RowStanding(**vars(found.standing), level=level.l0)
