"""What a record noted while its cell trained: spend, FVU and L0 at a few points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.leaderboard.read.records import CellRecord
from saebench.leaderboard.tables.statistics import mean

UNITS = ("tokens", "flops", "seconds")
_ALL_IN = ("train", "data", "parent")
ALL_IN = {"tokens": _ALL_IN, "flops": (*_ALL_IN, "forward"), "seconds": (*_ALL_IN, "forward")}
"""Kinds of work that everything it takes to have an SAE is the sum of. The model's forward reads the very tokens that
are trained on: it adds FLOPs and seconds, and no tokens."""


@dataclass(frozen=True)
class Spend:
    """What some work cost, by unit; None where it was not measured."""

    tokens: float | None
    flops: float | None
    seconds: float | None

    def of(self, unit: str) -> float | None:
        """Of one unit."""
        return {"tokens": self.tokens, "flops": self.flops, "seconds": self.seconds}[unit]


@dataclass(frozen=True)
class Point(Spend):
    """A point of a training run: what its own training had cost, with FVU and L0 of one training batch."""

    fvu: float
    l0: float


def sum_or_none(values: Iterable[float | None]) -> float | None:
    """Sum of the values; None as soon as one of them is missing."""
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def seconds_spent(cell: CellRecord, kind: str) -> float | None:
    """Seconds of one kind of work (train, data, parent, forward, scoring).

    0 where no such work was done, None where it was not measured.
    """
    seconds = (cell.measured.get("spent_s") or {}).get(kind)
    if seconds is not None:
        return float(seconds)
    work = (cell.facts["spent"] or {}).get(kind) or {}
    return None if work.get("tokens") or work.get("flops") else 0.0


def training_trajectory(cell: CellRecord) -> tuple[Point, ...]:
    """The cell's own training at each point that has an FVU and an L0, by rising spend.

    `seconds` is None in all of them where one is missing.

    Raises:
        ValueError, KeyError, TypeError: A shape that is no trajectory.
    """
    points = (cell.facts.get("training") or {}).get("trajectory") or []
    seconds = cell.measured.get("trajectory_s") or [None] * len(points)
    if any(value is None for value in seconds):
        seconds = [None] * len(seconds)
    return tuple(
        Point(
            tokens=float(point["tokens"]),
            flops=None if point.get("flops") is None else float(point["flops"]),
            seconds=None if at is None else float(at),
            fvu=float(point["fvu"]),
            l0=float(point["l0"]),
        )
        for point, at in zip(points, seconds, strict=True)
        if point["tokens"] > 0 and point.get("fvu") is not None and point.get("l0")
    )


def spent(cell: CellRecord, kind: str, unit: str) -> float | None:
    """Tokens, FLOPs or seconds of one kind of work."""
    if unit == "seconds":
        return seconds_spent(cell, kind)
    return float(((cell.facts["spent"] or {}).get(kind) or {}).get(unit) or 0)


def spent_before(cell: CellRecord) -> Spend:
    """What making a cell's data and having its parent cost: all-in spend at the moment its own training began."""
    return Spend(*(sum_or_none(spent(cell, kind, unit) for kind in ("data", "parent")) for unit in UNITS))


def spent_on_forwards(cell: CellRecord) -> Spend:
    """What the model's forwards add to a cell's own training in the all-in view: no tokens."""
    return Spend(0.0, spent(cell, "forward", "flops"), spent(cell, "forward", "seconds"))


def with_forwards(run: Sequence[Point], unit: str, forward: float) -> list[tuple[float, Point]]:
    """The points of a run that have a spend in this unit, each with it and its part of the whole run's `forward`."""
    whole = (run[-1].tokens or 1.0) if run else 1.0
    return [
        (own + forward * (point.tokens or 0.0) / whole, point) for point in run if (own := point.of(unit)) is not None
    ]


def mean_trajectory(runs: Sequence[Sequence[Point]]) -> tuple[Point, ...]:
    """Mean over seeds at each number of tokens that all of them noted."""
    by_tokens = [{point.tokens: point for point in run} for run in runs]
    shared = [tokens for tokens in by_tokens[0] if all(tokens in points for points in by_tokens)]
    means = []
    for tokens in shared:
        points = [found[tokens] for found in by_tokens]
        flops, seconds = (mean_or_none([point.of(unit) for point in points]) for unit in ("flops", "seconds"))
        fvu, l0 = mean([point.fvu for point in points]), mean([point.l0 for point in points])
        means.append(Point(tokens, flops, seconds, fvu, l0))
    return tuple(means)


def mean_or_none(values: Sequence[float | None]) -> float | None:
    """Mean of the values; None as soon as one of them is missing."""
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None


def numerics(cells: Sequence[CellRecord]) -> dict[str, tuple[str, ...]]:
    """What the seeds trained in (back end, precision) and the share of rows that fell back to the plain path, as text.

    Empty for records without.
    """
    found: dict[str, set[str]] = {}
    fallback = []
    for cell in cells:
        training = cell.facts.get("training") or {}
        for name, value in (training.get("numerics") or {}).items():
            found.setdefault(str(name), set()).add(_text(value))
        share = (training.get("facts") or {}).get("fallback_rows")
        if share is not None:
            fallback.append(float(share["mean"]))
    shown = {name: tuple(sorted(found[name])) for name in sorted(found)}
    return {**shown, "fallback rows": (f"{mean(fallback):.3%}",)} if fallback else shown


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in sorted(value.items())) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
