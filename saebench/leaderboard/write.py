"""`build`: records -> board -> data.json, chart.svg, README.md, index.html.

Nothing else is read, nothing else is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from saebench.api.errors import SuiteError
from saebench.artifacts.atomic import machine_errors
from saebench.artifacts.output import check_output, listened, write_output
from saebench.base.canonical import pretty_json
from saebench.leaderboard.charts.site import chart_svg
from saebench.leaderboard.pages.html import page_html
from saebench.leaderboard.pages.markdown import readme_markdown
from saebench.leaderboard.read.merge import MergedRecords, merged_records
from saebench.leaderboard.read.survive import surviving
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.site import Board

MARKS = {
    "chart.svg": re.compile(rb"<!-- Generator: saebench leaderboard -->"),
    "data.json": re.compile(rb'"saebench": "[^"]*",\s+"schema_version": \d+,\s+"statistics": '),
    "README.md": re.compile(rb"\A# saebench leaderboard: .*Made by `saebench leaderboard` from ", re.DOTALL),
    "index.html": re.compile(rb'<meta name="generator" content="saebench \d'),
}
"""The files of a leaderboard, and what each holds that saebench made."""


def check_pages(out: Path, aside: Callable[[str], None] | None = None) -> None:
    """Nothing, where a leaderboard may be written.

    Args:
        out: The leaderboard's folder.
        aside: In a run's own folder: a file that saebench did not make, or that is damaged, is renamed, and a line says
            so.

    Raises:
        SuiteError: `out` is no folder, or has a file that saebench did not make.
        MachineError: A file cannot be read or renamed.
    """
    with machine_errors(out):
        if os.path.lexists(out) and not out.is_dir():
            raise SuiteError(f"{out}: not a folder. Choose another folder with --out.")
    for name, mark in MARKS.items():
        with _or_aside(out / name, aside):
            check_output(out / name, mark)


@contextmanager
def _or_aside(path: Path, aside: Callable[[str], None] | None) -> Iterator[None]:
    """Renames a file that is refused, where `aside` is given."""
    try:
        yield
    except SuiteError:
        if aside is None:
            raise
        aside(f"{path}: not a page that saebench made, or damaged; it is now {_aside(path).name}")


def _aside(path: Path) -> Path:
    """Renames a file to the first free `<name>.old-N`."""
    number = 1
    while os.path.lexists(target := path.with_name(f"{path.name}.old-{number}")):
        number += 1
    with machine_errors(path):
        path.rename(target)
    return target


def _drawn(records: MergedRecords) -> tuple[Board, dict[str, bytes]]:
    """The board of these records, and the bytes of its files."""
    board = make_board(records)
    svg = chart_svg(board)
    readme, page = readme_markdown(board, has_chart=svg is not None), page_html(board)
    made = {"chart.svg": svg, "data.json": pretty_json(board.to_json()), "README.md": readme, "index.html": page}
    return board, {name: text.encode() for name, text in made.items() if text is not None}


def build(
    folders: Sequence[Path],
    out: Path,
    *,
    aside: Callable[[str], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes the leaderboard of the records in `folders` into `out`.

    Records are only read, also where `out` holds them. Equal records and versions give equal bytes, in whatever order
    the folders are given and wherever they are.

    Args:
        folders: Folders that hold records/ (and groups/).
        out: Where index.html, README.md, data.json and chart.svg go; made if it is not there.
        aside: As `check_pages` has it.
        say: Hears of every record that cannot be read and is left out.

    Returns:
        The folder `out`.

    Raises:
        SuiteError: No records, none that can be shown, or `out` has a file that saebench did not make.
        MachineError: `out` cannot be written.
    """
    out = Path(out)
    check_pages(out, aside)
    # Everything is made, and whoever reads pipes is there, before anything is written: an error leaves the old pages
    # whole.
    board, made = surviving(merged_records([Path(folder) for folder in folders]), _drawn, whatever=True)
    for item in board.left_out:
        if item.kind == "unreadable":
            say(f"warning: {item.path} is left out: {item.reason}")
    pages = {out / name: content for name, content in made.items()}
    with ExitStack() as pipes:
        for path in pages:
            with _or_aside(path, aside):
                pipes.enter_context(listened(path))
        if (chart := out / "chart.svg") not in pages and chart.is_file() and not chart.is_symlink():
            with machine_errors(out):
                chart.unlink()
        for path, page_bytes in pages.items():
            write_output(path, page_bytes, MARKS[path.name])
    return out
