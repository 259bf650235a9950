"""Medians, ratios, bars and fitted exponents; the Markdown table. Works on the JSON alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from cases import Bar, Case

Row = Mapping[str, Any]
NAMES = {"faster": "times as fast as", "time": "time over that of", "memory": "peak memory over that of"}


def round_medians(row: Row) -> list[float]:
    """Seconds a step: each round's median."""
    return [median(seconds) for seconds in row["seconds"]]


def seconds_of(row: Row) -> float | None:
    """Median over the rounds."""
    return median(round_medians(row)) if row["seconds"] else None


def paired(numerator: Row, denominator: Row) -> list[float]:
    """Ratio of times in each round: what is slow for a minute is slow for both."""
    return [a / b for a, b in zip(round_medians(numerator), round_medians(denominator), strict=False)]


def judge(bar: Bar, rows: Mapping[str, Row]) -> dict[str, Any] | None:
    """One bar: its value, the range over rounds, and whether it holds; None where a figure is missing."""
    if bar.of not in rows or not rows[bar.of]["seconds"]:
        return None
    own = rows[bar.of]
    others = [rows[name] for name in bar.against if name in rows and rows[name]["seconds"]]
    if not others:
        return None
    if bar.what == "memory":
        best = min(others, key=lambda row: row["peak_bytes"])
        ratios = [own["peak_bytes"] / best["peak_bytes"]]
    else:
        best = min(others, key=lambda row: seconds_of(row) or math.inf)
        ratios = paired(best, own) if bar.what == "faster" else [ratio / bar.times for ratio in paired(own, best)]
    value = median(ratios)

    def holds(limit: float | None) -> bool | None:
        return None if limit is None else value >= limit if bar.what == "faster" else value <= limit

    return {
        "what": bar.what, "of": bar.of, "against": best["name"], "times": bar.times, "value": value, "low": min(ratios),
        "high": max(ratios), "must": bar.must, "goal": bar.goal, "meets_must": holds(bar.must),
        "meets_goal": holds(bar.goal),
    }  # fmt: skip


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Least-squares exponent p of y = c x^p."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - middle_x) ** 2 for x in xs
    )


def exponents(case: Case, rows: Mapping[str, Row]) -> dict[str, Any]:
    """For each axis: time a token at each value, the exponent over all of them and over the last three."""
    found: dict[str, Any] = {}
    for axis, places in case.axes.items():
        points = []
        for name, value in places.items():
            seconds = seconds_of(rows[name]) if name in rows else None
            if seconds is not None:
                points.append((value, seconds / rows[name]["shape"]["batch"]))
        if len(points) >= 3:
            found[axis] = {
                "seconds_per_token": points,
                "exponent": slope(points),
                "exponent_of_last_three": slope(points[-3:]),
            }
    return found


def summarise(case: Case, rows: Sequence[Row]) -> dict[str, Any]:
    """Bars and exponents, JSON-ready."""
    by_name = {row["name"]: row for row in rows}
    return {
        "bars": [found for bar in case.bars if (found := judge(bar, by_name))],
        "exponents": exponents(case, by_name),
    }


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in body]


def _facts(row: Row) -> str:
    parts = []
    for name, value in row["facts"].items():
        parts.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(parts)


def _first(case: Row, row: Row) -> Row:
    """What a row is compared with: the first one, or its own library's first."""
    return next(other for other in case["rows"] if not case["apart"] or other["module"] == row["module"])


def _times(bar: Row) -> str:
    return f"{bar['times']} x " if bar["times"] > 1 else ""


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report."""
    lines = []
    for name, case in result["cases"].items():
        machine = case["machine"]
        lines += [f"## {name}: {case['title']}", ""]
        lines += [
            f"{machine['processor']}, {machine['threads']} threads, {machine['device']}; {case['rounds']} "
            f"interleaved rounds of {case['steps']} steps; "
            f"{case['started']}; load of the machine before the start {machine['load']}. "
            + ", ".join(f"{package} {version}" for package, version in machine["versions"].items()),
            "",
        ]
        body = []
        for row in case["rows"]:
            seconds = seconds_of(row)
            if seconds is None:
                body.append([row["name"], "", "", "", "", "", row["problem"] or ""])
                continue
            first = _first(case, row)
            ratios = paired(row, first) if first["seconds"] else []
            rounds = round_medians(row)
            memory = f"{row['peak_bytes'] / 1e6:.0f} ({row['base_bytes'] / 1e6:.0f})" if row["peak_bytes"] else ""
            body.append([
                row["name"], f"{1000 * seconds:.1f}", f"{1000 * min(rounds):.1f} to {1000 * max(rounds):.1f}",
                f"{row['shape']['batch'] / seconds:,.0f}", f"{median(ratios):.2f}" if ratios else "", memory,
                _facts(row),
            ])  # fmt: skip
        head = [
            "contender",
            "ms a step",
            "rounds",
            "tokens/s",
            "time / own first" if case["apart"] else f"time / {case['rows'][0]['name']}",
            "peak MB (before building)",
            "facts",
        ]
        lines += [*_table(head, body), ""]
        if case["bars"]:
            body = [
                [
                    f"{bar['of']}: {NAMES[bar['what']]} {_times(bar)}{bar['against']}", f"{bar['value']:.2f}",
                    f"{bar['low']:.2f} to {bar['high']:.2f}", "" if bar["must"] is None else f"{bar['must']:g}",
                    _yes(bar["meets_must"]), "" if bar["goal"] is None else f"{bar['goal']:g}", _yes(bar["meets_goal"]),
                ]
                for bar in case["bars"]
            ]  # fmt: skip
            lines += [*_table(["figure", "value", "over rounds", "must", "held", "goal", "held"], body), ""]
        if case["exponents"]:
            body = [
                [
                    axis,
                    f"{fit['exponent']:.2f}",
                    f"{fit['exponent_of_last_three']:.2f}",
                    ", ".join(f"{x:,.0f}: {1e6 * y:.1f}" for x, y in fit["seconds_per_token"]),
                ]
                for axis, fit in case["exponents"].items()
            ]
            lines += [
                *_table(["time a token against", "exponent", "of the last three", "microseconds a token"], body),
                "",
            ]
    return "\n".join(lines)
