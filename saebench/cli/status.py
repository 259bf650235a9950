"""`saebench status`: what is done, running, failed and left."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from tabulate import tabulate

from saebench.cli.common import Named, common, emit


@click.command("status")
@click.argument("folder", type=Named(), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@common
def command(folder: Path, as_json: bool, plugins: tuple[Path, ...], debug: bool) -> None:
    """Show done, failed and left cells of a run folder, with times."""
    from saebench.execute.status import read_status

    status = read_status(folder)
    if as_json:
        emit(json.dumps({**asdict(status), "counts": status.counts(), "seconds_left": status.seconds_left()}, indent=2))
        return
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in status.cells:
        mark = {"ok": "done", "left": "left"}.get(cell.state, cell.state)
        seconds = f" {(cell.train_s or 0) + (cell.score_s or 0):.1f}s" if cell.state == "ok" else ""
        rows.setdefault((cell.entry, cell.point), []).append(f"s{cell.init_seed} {mark}{seconds}")
    emit(
        tabulate(
            [[entry, point, ", ".join(cells)] for (entry, point), cells in rows.items()],
            headers=["entry", "point", "seeds"],
            tablefmt="simple",
        )
    )
    for cell in status.cells:
        if cell.error:
            emit(f"{cell.entry} {cell.point} s{cell.init_seed} {cell.state}: {cell.error}")
    for reason in status.refused:
        emit(f"refused: {reason}")
    counts = ", ".join(
        f"{count} {'done' if state == 'ok' else state}" for state, count in sorted(status.counts().items())
    )
    left = status.seconds_left()
    ends = f"; about {left:.0f} s left" if left else ""
    emit(f"{status.suite}: {counts}{ends}" + ("; running now" if status.running else ""))
