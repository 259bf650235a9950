"""README.md of a leaderboard: GitHub tables and the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from saebench.leaderboard.columns import COLUMNS, Column
from saebench.leaderboard.formats import count, with_interval
from saebench.leaderboard.words import (
    EN_DASH,
    LEAD,
    candidate_note,
    decimals_of,
    method,
    rank_text,
    search_facts,
    site_facts,
)

_SPECIAL = str.maketrans(
    {
        "|": "\\|",
        "<": "&lt;",
        ">": "&gt;",
        "\n": " ",
        "\r": " ",
        "*": "\\*",
        "_": "\\_",
        "`": "\\`",
        "[": "\\[",
        "]": "\\]",
    }
)


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    return str(text).replace("&", "&amp;").replace("\\", "\\\\").translate(_SPECIAL)


def readme_markdown(board: Mapping[str, Any], *, has_chart: bool) -> str:
    """The whole page."""
    names = ", ".join(escaped(suite["name"]) for suite in board["suites"])
    parts = [f"# saebench leaderboard: {names}", LEAD]
    if has_chart:
        parts.append("![Fidelity against L0, mean and 95 % interval over seeds](chart.svg)")
    parts.append(
        "Interactive page with every number: `index.html`. All data: `data.json`. Made by `saebench leaderboard` from `records/` and `groups/` alone; do not edit."
    )
    for suite in board["suites"]:
        parts += _suite(suite, several=len(board["suites"]) > 1)
    if board["left_out"]:
        rows = [
            [item["kind"], escaped(item["cell"]), item["score_id"][:12], escaped(item["reason"])]
            for item in board["left_out"]
        ]
        parts += ["## Records left out", _table(["why", "cell", "score", "reason"], rows, "left")]
    parts.append("## How to read it")
    parts.append("\n".join(f"- **{term}.** {text}" for term, text in method(board)))
    parts.append(f"saebench {board['saebench']}.")
    return "\n\n".join(parts) + "\n"


def _suite(suite: Mapping[str, Any], *, several: bool) -> list[str]:
    parts = [f"## Suite {escaped(suite['name'])}"] if several else []
    for site in suite["sites"]:
        parts.append(f"## {escaped(site['title'])}")
        parts.append("\n".join(f"- {term}: {escaped(text)}" for term, text in site_facts(site)))
        if site["mixed_versions"]:
            mixed = ", ".join(
                f"{escaped(name)} {' and '.join(versions)}" for name, versions in site["mixed_versions"].items()
            )
            parts.append(
                f"> **Not ranked:** these scores come from different metric versions ({mixed}). Score the older cells again with `saebench run`."
            )
        columns = [column for column in COLUMNS if column.id in site["columns"]]
        if site["rows"]:
            parts.append(
                _table(["contender", "rank", *map(_heading, columns)], [_row(row, columns) for row in site["rows"]])
            )
        if site["controls"]:
            parts.append("Controls: floor and ceiling, no training budget, not ranked.")
            kept = [column for column in columns if any(row["columns"][column.id]["value"] for row in site["controls"])]
            parts.append(
                _table(["control", *map(_heading, kept)], [_row(row, kept, ranked=False) for row in site["controls"]])
            )
        for search in site["searches"]:
            parts += [f"### Search: {escaped(search['label'])}", escaped(search_facts(search)), _search(search)]
    if suite["not_ok"]:
        parts.append("### Cells without a score")
        rows = [
            [escaped(item["cell"]), escaped(item["place"]), item["status"], escaped(item["reason"])]
            for item in suite["not_ok"]
        ]
        parts.append(_table(["cell", "where", "status", "reason"], rows, "left"))
    return parts


def _search(search: Mapping[str, Any]) -> str:
    rows = []
    for candidate in search["candidates"]:
        found, cost = candidate["validation"], candidate["cost"]
        rows.append(
            [
                escaped(candidate["label"]),
                with_interval(found["value"], found["half"], 4),
                str(found["n"]),
                count(cost["tokens"]),
                escaped(candidate_note(search, candidate)),
            ]
        )
    headers = ["candidate", f"validation {search['metric']}", "seeds", "training tokens a seed", "result"]
    return _table(headers, rows)


def _heading(column: Column) -> str:
    return (
        f"FFR {column.heading}"
        if column.family == "FFR"
        else f"{column.heading} tokens"
        if column.family == "tokens"
        else column.heading
    )


def _row(row: Mapping[str, Any], columns: Sequence[Column], *, ranked: bool = True) -> list[str]:
    seeds = (
        ""
        if len(row["seeds"]) == len(row["planned_seeds"])
        else f" ({len(row['seeds'])} of {len(row['planned_seeds'])} seeds)"
    )
    best = f" ({row['tune']['text']})" if row["tune"] else ""
    return [
        escaped(row["label"]) + best + seeds,
        *([rank_text(row["standing"])] if ranked else []),
        *(_cell(row, column) for column in columns),
    ]


def _cell(row: Mapping[str, Any], column: Column) -> str:
    shown = row["columns"][column.id]
    if shown["value"] is None:
        return EN_DASH
    if column.id.startswith("cost:"):
        return count(shown["value"])
    return with_interval(shown["value"], shown["half"], decimals_of(column, shown["value"]))


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "right") -> str:
    return tabulate(
        rows,
        headers=headers,
        tablefmt="github",
        disable_numparse=True,
        colalign=["left", *[numbers] * (len(headers) - 1)],
    )
