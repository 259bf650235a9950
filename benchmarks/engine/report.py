"""What cases hand over, and the Markdown table. Imports nothing of this folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Row:
    """One thing that was timed.

    Attributes:
        name: In the table.
        seconds: One figure a round.
        tokens: Tokens that these seconds went into; None where a token is no unit.
        n_bytes: Bytes that were moved in them, where that is what matters.
    """

    name: str
    seconds: Sequence[float]
    tokens: int | None = None
    n_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, with the median and what follows from it."""
        middle = median(self.seconds)
        return {
            "name": self.name, "seconds": list(self.seconds), "median_s": middle, "tokens": self.tokens,
            "tokens_per_s": self.tokens / middle if self.tokens else None,
            "n_bytes": self.n_bytes, "bytes_per_s": self.n_bytes / middle if self.n_bytes else None,
        }  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """A number to hold or to tell.

    Attributes:
        name: In the table.
        values: One a round (or a seed).
        must, goal: The bars; None for a figure that is only told.
        most: True where it must be at most the bar, False where at least.
    """

    name: str
    values: Sequence[float]
    must: float | None = None
    goal: float | None = None
    most: bool = True

    def holds(self, limit: float | None) -> bool | None:
        """Whether the median is on the right side; None without a bar."""
        if limit is None:
            return None
        return median(self.values) <= limit if self.most else median(self.values) >= limit

    def to_json(self) -> dict[str, Any]:
        """JSON-ready, judged."""
        return {
            "name": self.name, "values": list(self.values), "median": median(self.values), "must": self.must,
            "goal": self.goal,
            "at_most": self.most, "meets_must": self.holds(self.must), "meets_goal": self.holds(self.goal),
        }  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One case, measured.

    Attributes:
        rows, figures: The two tables.
        facts: What one must know to read them: sizes, what was found equal.
    """

    rows: Sequence[Row]
    figures: Sequence[Figure]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, *, judged: bool = True) -> dict[str, Any]:
        """JSON-ready; without bars where they were not meant for these sizes."""
        figures = self.figures if judged else [replace(figure, must=None, goal=None) for figure in self.figures]
        return {
            "rows": [row.to_json() for row in self.rows],
            "figures": [figure.to_json() for figure in figures],
            "facts": dict(self.facts),
        }


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """One round's figure over the other's of the same round: what is slow for a minute is slow for both."""
    return [a / b for a, b in zip(above, below, strict=True)]


def number(value: float | None) -> str:
    """Four digits; nothing for nothing."""
    return "" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in body] + [""]


def _rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    body = [
        [
            row["name"], number(1000 * row["median_s"]),
            f"{number(1000 * min(row['seconds']))} to {number(1000 * max(row['seconds']))}",
            number(1e6 / row["tokens_per_s"]) if row["tokens_per_s"] else "",
            f"{row['tokens_per_s']:,.0f}" if row["tokens_per_s"] else "",
            number(row["bytes_per_s"] / 1e6) if row["bytes_per_s"] else "",
        ]
        for row in rows
    ]  # fmt: skip
    return _table(["what", "ms", "rounds", "µs a token", "tokens/s", "MB/s"], body)


def _figures(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    body = []
    for figure in figures:
        sign = "≤ " if figure["at_most"] else "≥ "
        bars = ["" if figure[name] is None else sign + number(figure[name]) for name in ("must", "goal")]
        body.append([
            figure["name"], number(figure["median"]),
            f"{number(min(figure['values']))} to {number(max(figure['values']))}",
            bars[0], _yes(figure["meets_must"]), bars[1], _yes(figure["meets_goal"]),
        ])  # fmt: skip
    return _table(["figure", "median", "range", "must", "held", "goal", "held"], body)


def markdown(result: Mapping[str, Any]) -> str:
    """The whole report, from the JSON alone."""
    lines = []
    for name, case in result["cases"].items():
        machine = case["machine"]
        lines += [f"## {name}: {case['title']}", ""]
        lines += [
            f"{machine['processor']}, {machine['threads']} threads, {machine['device']}; {case['rounds']} "
            f"interleaved rounds{', shrunken sizes' if case['small'] else ''}; "
            f"{case['started']}, {case['took_s']:.0f} s; load of the machine before the start {machine['load']}. "
            + ", ".join(f"{package} {version}" for package, version in machine["versions"].items()),
            "",
        ]  # fmt: skip
        lines += _rows(case["rows"])
        lines += _figures(case["figures"])
        told = [f"{key} {number(value) if isinstance(value, float) else value}" for key, value in case["facts"].items()]
        lines += ["; ".join(told) + ".", ""] if told else []
    return "\n".join(lines)
