"""What a record noted while its cell trained: spend, FVU and L0 at a few points, and what had been spent before the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saebench.leaderboard.read.merge import CellRecord
from saebench.leaderboard.tables.statistics import mean


def seconds_spent(cell: CellRecord, kind: str) -> float | None:
    """Seconds of one kind of work (train, data, parent, forward, scoring); 0 where no such work was done, None where it was not measured."""
    seconds = (cell.measured.get("spent_s") or {}).get(kind)
    if seconds is not None:
        return float(seconds)
    work = (cell.facts["spent"] or {}).get(kind) or {}
    return None if work.get("tokens") or work.get("flops") else 0.0


def training_trajectory(cell: CellRecord) -> list[dict[str, float | None]]:
    """The cell's own training: `{tokens, flops, seconds, fvu, l0}` at each point that has an FVU and an L0, by rising spend.

    `seconds` is None throughout where the record holds none; FVU and L0 are those of one training batch.

    Raises:
        ValueError, KeyError, TypeError: A shape that is no trajectory.
    """
    points = (cell.facts.get("training") or {}).get("trajectory") or []
    seconds = cell.measured.get("trajectory_s") or [None] * len(points)
    if any(value is None for value in seconds):
        seconds = [None] * len(seconds)
    return [
        {
            "tokens": float(point["tokens"]),
            "flops": None if point.get("flops") is None else float(point["flops"]),
            "seconds": None if at is None else float(at),
            "fvu": float(point["fvu"]),
            "l0": float(point["l0"]),
        }
        for point, at in zip(points, seconds, strict=True)
        if point["tokens"] > 0 and point.get("fvu") is not None and point.get("l0")
    ]


def spent_before(cell: CellRecord) -> dict[str, float | None]:
    """What making a cell's data and training its parent cost, by currency: all-in spend at the moment its own training began."""
    spent = cell.facts["spent"] or {}
    before: dict[str, float | None] = {
        unit: sum(float((spent.get(kind) or {}).get(unit) or 0) for kind in ("data", "parent"))
        for unit in ("tokens", "flops")
    }
    data, parent = seconds_spent(cell, "data"), seconds_spent(cell, "parent")
    before["seconds"] = None if data is None or parent is None else data + parent
    return before


def mean_trajectory(runs: Sequence[Sequence[Mapping[str, float | None]]]) -> list[dict[str, float | None]]:
    """Mean over seeds at each number of tokens that all of them noted."""
    by_tokens = [{point["tokens"]: point for point in run} for run in runs]
    shared = set(by_tokens[0]).intersection(*by_tokens[1:])
    return [
        {name: mean_or_none([points[tokens][name] for points in by_tokens]) for name in by_tokens[0][tokens]}
        for tokens in by_tokens[0]
        if tokens in shared
    ]


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean of the values; None as soon as one of them is missing."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def numerics(cells: Sequence[CellRecord]) -> dict[str, list[str]]:
    """What the seeds trained in (back end, precision) and the share of rows that fell back to the plain path, as text; empty for records without."""
    found: dict[str, set[str]] = {}
    fallback = []
    for cell in cells:
        training = cell.facts.get("training") or {}
        for name, value in (training.get("numerics") or {}).items():
            found.setdefault(str(name), set()).add(_text(value))
        share = (training.get("facts") or {}).get("fallback_rows")
        if share is not None:
            fallback.append(float(share["mean"]))
    shown = {name: sorted(found[name]) for name in sorted(found)}
    return {**shown, "fallback rows": [f"{mean(fallback):.3%}"]} if fallback else shown


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in sorted(value.items())) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
