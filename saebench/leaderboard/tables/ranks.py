"""Ranks at matched sparsity: contenders as curves over L0, compared level by level."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saebench.leaderboard.pages.names import natural
from saebench.leaderboard.tables.statistics import LEVEL_TOLERANCE, Curve, over_seeds, rank_level, sparsity_levels

PRIMARY = "variance-explained"
"""The metric whose rank stands in the main table."""

RANKED = (PRIMARY, "ce-recovered-mean", "kl", "truth-mcc", "truth-f1")
"""Metrics that are ranked, each on its own."""


def l0_of(row: Mapping[str, Any]) -> float:
    """Mean measured L0 of a row; 0 where it was not measured."""
    metric = row["metrics"].get("l0")
    return float(metric["value"]) if metric and metric["value"] is not None else 0.0


def curve_families(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows that make one curve over L0: one entry's points. Points at one L0 (a sweep of something else) are curves of their own."""
    by_entry: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if l0_of(row) > 0:
            by_entry[row["entry"] + (f" d{row['data_seed']}" if row["data_seed"] else "")].append(row)
    families: dict[str, list[Mapping[str, Any]]] = {}
    for name, members in by_entry.items():
        ordered = sorted(members, key=l0_of)
        apart = all(l0_of(high) > l0_of(low) * 1.02 for low, high in itertools.pairwise(ordered))
        if apart:
            families[name] = ordered
        else:
            families.update({row["label"]: [row] for row in ordered})
    return dict(sorted(families.items(), key=lambda item: natural(item[0])))


def _curve(rows: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        l0, values = row["metrics"]["l0"]["seeds"], (row["metrics"].get(metric) or {}).get("seeds") or {}
        for seed in sorted(l0.keys() & values.keys()):
            if l0[seed] > 0:
                points[int(seed)].append((l0[seed], values[seed]))
    return Curve({seed: tuple(sorted(found)) for seed, found in points.items()})


def rank_levels(rows: Sequence[dict[str, Any]], mixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Ranks of all contenders at each sparsity level, by each ranked metric; also sets `row["standing"]` of every row.

    The levels are the L0s that configs aim at; without any, the measured L0s of the first contender. With `mixed` metric versions
    nothing is ranked and every standing says so.
    """
    families = curve_families(rows)
    refusal = _refusal(mixed)
    for row in rows:
        row["standing"] = {"level": None, "rank": None, "ties": [], "compared": 0, "reason": "no L0 measured"}
    targets = [row["expected_l0"] for row in rows if row["expected_l0"]]
    if not targets:
        targets = [l0_of(row) for row in next(iter(families.values()), [])]
    levels = sparsity_levels(targets)
    result = []
    for level in levels:
        metrics: dict[str, Any] = {}
        for metric in RANKED:
            curves = {name: curve for name, members in families.items() if (curve := _curve(members, metric)).points}
            if curves:
                metrics[metric] = ranking(curves, level, _direction(rows, metric), refusal)
        if metrics:
            order = _order(metrics)
            present = [
                name
                for name in order
                if any((found["contenders"].get(name) or {}).get("l0") for found in metrics.values())
            ]
            result.append(
                {"l0": level, "metrics": metrics, "order": order, "present": present, "several": len(present) > 1}
            )
    family_of = {row["id"]: name for name, members in families.items() for row in members}
    for row in rows:
        if row["id"] in family_of:
            _attach_standing(row, family_of[row["id"]], result)
    return result


def _direction(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    return next(str(row["metrics"][metric]["direction"]) for row in rows if metric in row["metrics"])


def _refusal(mixed: Mapping[str, Any]) -> str | None:
    versions = ", ".join(f"{spec} {' and '.join(found)}" for spec, found in mixed.items())
    return f"metric versions are mixed: {versions}" if mixed else None


def ranking(curves: Mapping[str, Curve], level: float, direction: str, refusal: str | None = None) -> dict[str, Any]:
    """Contenders at one level by one metric: value, interval, the L0 it belongs to and the standing; `refusal` is why nobody is ranked."""
    standings, pairs = rank_level(curves, level, higher_is_better=direction != "lower")
    contenders = {}
    for name, curve in curves.items():
        values, shown_at, way = curve.standing_for(level)
        standing = standings[name]
        if refusal:
            standing_json: dict[str, Any] = {"rank": None, "ties": [], "compared": 0, "reason": refusal}
        else:
            standing_json = {**asdict(standing), "ties": list(standing.ties)}
        contenders[name] = {
            **asdict(over_seeds(values, reason=f"no L0 measured near {level:g}")),
            "l0": shown_at if values else None,
            "way": way,
            "standing": standing_json,
        }
    halves = sorted(
        pair.interval.half for pair in pairs if pair.interval is not None and pair.interval.half is not None
    )
    return {
        "direction": direction,
        "contenders": contenders,
        "pairs": [asdict(pair) for pair in pairs],
        # Half of the pairs can resolve a difference this small.
        "resolvable": halves[(len(halves) - 1) // 2] if halves else None,
    }


def _order(metrics: Mapping[str, Any]) -> list[str]:
    primary = metrics.get(PRIMARY) or next(iter(metrics.values()))
    return order_of(primary, {name for metric in metrics.values() for name in metric["contenders"]})


def order_of(primary: Mapping[str, Any], names: Collection[str] | None = None) -> list[str]:
    """Contenders (or `names`) by rank in one ranking, then by value, then by name."""
    sign = 1.0 if primary["direction"] == "lower" else -1.0

    def key(name: str) -> tuple[Any, ...]:
        found = primary["contenders"].get(name)
        if found is None or found["value"] is None:
            return (10**6, 0.0, natural(name))
        return (found["standing"]["rank"] or 10**5, sign * found["value"], natural(name))

    return sorted(primary["contenders"] if names is None else names, key=key)


def _attach_standing(row: dict[str, Any], family: str, levels: Sequence[Mapping[str, Any]]) -> None:
    """The row's rank by the primary metric at the level it stands for: the nearest, when within tolerance."""
    l0 = l0_of(row)
    near = [level for level in levels if max(level["l0"], l0) <= min(level["l0"], l0) * (1 + LEVEL_TOLERANCE)]
    level = min(near, key=lambda item: abs(item["l0"] - l0), default=None)
    found = (level["metrics"].get(PRIMARY) or {}).get("contenders", {}).get(family) if level else None
    if level is None or found is None:
        row["standing"] = {
            "level": None,
            "rank": None,
            "ties": [],
            "compared": 0,
            "reason": "its L0 is at no level where contenders are compared",
        }
    else:
        row["standing"] = {"level": level["l0"], **found["standing"]}
