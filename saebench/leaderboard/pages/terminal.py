"""The headline table for a terminal of 80 columns: what a run prints when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from saebench.leaderboard.pages.columns import COLUMNS, Column
from saebench.leaderboard.pages.numbers import with_interval
from saebench.leaderboard.pages.text import EN_DASH, decimals_of, rank_text
from saebench.leaderboard.tables.board import board_of

SHORT = {
    "l0": "L0",
    "variance-explained": "var. expl.",
    "ce-recovered-mean": "CE rec.",
    "truth-mcc": "MCC",
    "sfr-alive-corrected": "SFR alive",
    "sfr": "SFR",
}
"""Metrics that fit in 80 columns, with their short headings; SFR stands where no record has it for alive latents over chance."""


def summary(folders: Sequence[Path]) -> str:
    """One table a site, contenders first, then controls; the pages hold the rest.

    Raises:
        SuiteError: As `build`.
    """
    board = board_of([Path(folder) for folder in folders])
    parts = []
    for suite in board["suites"]:
        parts += [_site(site) for site in suite["sites"]]
        if suite["not_ok"]:
            parts.append("\n".join(f"{item['cell']}: {item['status']}: {item['reason']}" for item in suite["not_ok"]))
    return "\n\n".join(parts)


def _site(site: Mapping[str, Any]) -> str:
    shown = {id for id in SHORT if id in site["columns"]}
    if "sfr-alive-corrected" in shown:
        shown.discard("sfr")
    columns = [column for column in COLUMNS if column.id in shown]
    rows = [
        [row["label"], rank_text(row["standing"]), *(_cell(row, column) for column in columns)] for row in site["rows"]
    ]
    rows += [[row["entry"], "", *(_cell(row, column) for column in columns)] for row in site["controls"]]
    headers = ["", "#", *(SHORT[column.id] for column in columns)]
    table = tabulate(
        rows,
        headers=headers,
        tablefmt="simple",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(headers) - 1),
    )
    notes = ["SFR alive: over chance, (SFR - chance) / (1 - chance)."] if "sfr-alive-corrected" in shown else []
    notes += [f"{row['label']}: {row['tune']['text']}" for row in site["rows"] if row["tune"]]
    return "\n".join([site["title"], table, *notes])


def _cell(row: Mapping[str, Any], column: Column) -> str:
    shown = row["columns"][column.id]
    if shown["value"] is None:
        return EN_DASH
    return with_interval(shown["value"], shown["half"], decimals_of(column, shown["value"])).replace(" ± ", "±")
