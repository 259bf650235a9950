"""README.md of a leaderboard: GitHub tables and the chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from saebench.base.text import shown
from saebench.leaderboard.pages.columns import COLUMNS, Column
from saebench.leaderboard.pages.numbers import count, with_interval
from saebench.leaderboard.pages.text import (
    EN_DASH,
    LEAD,
    candidate_note,
    certificate_text,
    decimals_of,
    method,
    rank_text,
    search_facts,
    site_facts,
    total_text,
)
from saebench.leaderboard.tables.datasets import KINDS

_SPECIAL = str.maketrans(
    {
        "@": "&#64;",
        "#": "\\#",
        "~": "\\~",
        "$": "\\$",
        "!": "\\!",
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

_CORRECTED = {
    "sfr-alive": "SFR alive",
    "matched-cosine": "matched cosine",
    "matched-correlation": "matched correlation",
}
_SEEDS = "Scores over chance, (score - chance) / (1 - chance), a mean over pairs of seeds with a 95 % jackknife interval over seeds. The estimated total is the idealised dictionary size by capture-recapture: a lower bound, as some latents are harder to find than others."
_ACROSS = "SFR alive between SAEs that differ in the seed, in the training dataset, or in both, with 95 % jackknife intervals over init seeds. Equal init seeds lift “other dataset”."


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    plain = shown(" ".join(str(text).split())).replace("&", "&amp;").replace("\\", "\\\\").translate(_SPECIAL)
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")  # addresses become links unasked


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
            [item["kind"], escaped(item["cell"]), escaped(item["score_id"][:12]), escaped(item["reason"])]
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
                f"{escaped(name)} {escaped(' and '.join(versions))}"
                for name, versions in site["mixed_versions"].items()
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
        parts += _agreement(site)
        for search in site["searches"]:
            parts += [f"### Search: {escaped(search['label'])}", escaped(search_facts(search)), _search(search)]
    if suite["not_ok"]:
        parts.append("### Without a score")
        rows = [
            [escaped(item["cell"]), escaped(item["place"]), item["status"], escaped(item["reason"])]
            for item in suite["not_ok"]
        ]
        parts.append(_table(["cell", "where", "status", "reason"], rows, "left"))
    return parts


def _agreement(site: Mapping[str, Any]) -> list[str]:
    """Seeds over chance, and datasets against seeds, where the records have them."""
    parts = []
    found = [(row, row["stability"]) for row in site["rows"] if row["stability"]["scores"]]
    if any(score["corrected"] for _, stability in found for score in stability["scores"].values()):
        rows = []
        for row, stability in found:
            scores = [(stability["scores"].get(id) or {}).get("corrected") for id in _CORRECTED]
            recapture = stability["recapture"]
            rows.append(
                [
                    escaped(row["label"]),
                    *(
                        EN_DASH if score is None else with_interval(score["value"], score["half"], 3)
                        for score in scores
                    ),
                    f"{recapture['distinct'][-1]:,.0f} in {recapture['k'][-1]} seeds" if recapture else EN_DASH,
                    _total(recapture),
                    certificate_text(stability["matching"])[0],
                ]
            )
        headers = ["contender", *_CORRECTED.values(), "distinct latents", "estimated total (95 %)", "matching"]
        parts += ["### Do seeds agree?", _SEEDS, _table(headers, rows)]
    across = [item for item in site["across"] if item["reason"] is None]
    if across:
        rows = []
        for item in across:
            kinds = [item["kinds"][kind].get("sfr-alive") for kind in KINDS]
            difference = item["difference"]
            rows.append(
                [
                    escaped(f"{item['label']}: {', '.join(item['datasets'])}"),
                    *(EN_DASH if score is None else with_interval(score["value"], score["half"], 3) for score in kinds),
                    with_interval(difference["value"], difference["half"], 3),
                    difference["verdict"],
                ]
            )
        headers = ["SFR alive", *KINDS.values(), "seed - dataset", "what it says"]
        parts += ["### Dataset or seed?", _ACROSS, _table(headers, rows)]
    return parts


def _total(recapture: Mapping[str, Any] | None) -> str:
    if recapture is None:
        return EN_DASH
    total, interval = total_text(recapture)
    return f"{total} ({interval})" if interval else total


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
    headers = ["candidate", f"validation {escaped(search['metric'])}", "seeds", "training tokens a seed", "result"]
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
    best = f" ({escaped(row['tune']['text'])})" if row["tune"] else ""
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
