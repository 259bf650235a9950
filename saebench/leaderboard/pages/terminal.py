"""The headline table for a terminal of 80 columns: what a run prints when it ends."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from saebench.leaderboard.numbers import with_interval
from saebench.leaderboard.pages.text import (
    amount_text,
    child_verdict,
    curved,
    decimals_of,
    rank_text,
    unranked,
)
from saebench.leaderboard.read.columns import D_SAE, TableColumn
from saebench.leaderboard.read.merge import MergedRecords, merged_records
from saebench.leaderboard.read.survive import surviving
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.ranks import PRIMARY
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.site import Site

WIDTH = 80


def summary(folders: Sequence[Path]) -> str:
    """One table a site, contenders first, then controls; the pages hold the rest.

    Raises:
        SuiteError: As `build`.
    """
    return surviving(merged_records([Path(folder) for folder in folders]), _summary, whatever=True)


def _summary(records: MergedRecords) -> str:
    blocks = []
    for suite in make_board(records).suites:
        blocks += [_site(site) for site in suite.sites]
        if suite.not_ok:
            blocks.append("\n".join(f"{item.cell}: {item.status}: {item.reason}" for item in suite.not_ok))
    return "\n\n".join(blocks)


def _site(site: Site) -> str:
    sizes = {row.d_sae for row in site.rows} - {None}
    # there is room for one more column in few tables: a size that all share is a line below
    columns = [column for column in site.columns if column.terminal and not (column == D_SAE and len(sizes) < 2)]
    rows = [[row.label, rank_text(row.standing), *(_cell(row, column) for column in columns)] for row in site.rows]
    rows += [
        [row.label if row.continued else row.entry, "", *(_cell(row, column) for column in columns)]
        for row in site.controls
    ]
    table = tabulate(
        rows,
        headers=["", "#", *(column.terminal for column in columns)],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(columns) + 1),
    )
    over_chance = any(column.id == "sfr-alive-corrected" for column in columns)
    notes = [f"d_sae {size:,} in all contenders." for size in sizes if len(sizes) == 1]
    notes += ["SFR alive: over chance, (SFR - chance) / (1 - chance)."] if over_chance else []
    for note in (*unranked(site.rows), *curved(site.rows)):
        notes += textwrap.wrap(note, WIDTH, subsequent_indent="  ")
    notes += [f"{row.label}: {row.tune.text}" for row in site.rows if row.tune]
    for child in site.children:
        for metric in child.metrics:
            if metric.id == PRIMARY:
                notes.append(f"{child.label}: {child_verdict(metric)}, against {child.control} ({PRIMARY})")
    return "\n".join([site.title, table, *notes])


def _cell(row: Row, column: TableColumn) -> str:
    shown = row.shown(column)
    if shown.value is not None and (amount := amount_text(column, shown.value)) is not None:
        return amount
    return with_interval(shown.value, shown.half, decimals_of(column, shown.value)).replace(" ± ", "±")
