"""`saebench status`: what is done, running, failed and left."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from tabulate import tabulate

from saebench.cli.common import Named, common, emit
from saebench.cli.signals import Ended

if TYPE_CHECKING:
    from saebench.execute.status import Memory, Now, RunStatus

WATCH_S = 2.0


@click.command("status")
@click.argument("folder", type=Named(), metavar="DIR")
@click.option("--watch", is_flag=True, help="Show it again every two seconds, until no run works in the folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@common
def command(folder: Path, watch: bool, as_json: bool, debug: bool) -> None:
    """Show done, failed and left cells of a run folder, with times, and what a run does now."""
    from saebench.execute.status import read_status

    if watch and as_json:
        raise click.UsageError("--json prints one object. Leave out --watch.")
    status = read_status(folder)
    if as_json:
        emit(json.dumps({**asdict(status), "counts": status.counts(), "seconds_left": status.seconds_left()}, indent=2))
        return
    try:
        emit(page(status))
        if watch:
            _watch(folder, status)
    except Ended:
        raise
    except KeyboardInterrupt:
        raise click.exceptions.Exit(130) from None  # only the watching ends; the run continues


def _watch(folder: Path, status: RunStatus) -> None:
    from saebench.execute.status import read_status

    while status.running:
        time.sleep(WATCH_S)
        before, status = status, read_status(folder)
        if sys.stdout.isatty():
            click.clear()
            emit(page(status))
        elif _changed(before, status):
            emit("\n".join(_sum(status)))


def _changed(before: RunStatus, after: RunStatus) -> bool:
    """Whether cells ended, another phase began, or the run ended: in a log each is told once."""
    phases = [(status.now.phase, status.now.detail) if status.now is not None else None for status in (before, after)]
    return before.cells != after.cells or phases[0] != phases[1] or before.running != after.running


def page(status: RunStatus) -> str:
    """A table of all cells, what went wrong, the sum, and what a run does now."""
    rows: dict[tuple[str, str], list[str]] = {}
    for cell in status.cells:
        mark = {"ok": "done", "left": "left"}.get(cell.state, cell.state)
        seconds = f" {(cell.train_s or 0) + (cell.score_s or 0):.1f}s" if cell.state == "ok" else ""
        point = f"{cell.point} {cell.variant}".rstrip()
        rows.setdefault((cell.entry, point), []).append(f"s{cell.init_seed} {mark}{seconds}")
    lines = [
        tabulate(
            [[entry, point, ", ".join(cells)] for (entry, point), cells in rows.items()],
            headers=["entry", "point", "seeds"],
            tablefmt="simple",
        )
    ]
    lines += [
        " ".join(
            filter(None, (cell.entry, cell.point, cell.variant, f"s{cell.init_seed}", f"{cell.state}: {cell.error}"))
        )
        for cell in status.cells
        if cell.error
    ]
    lines += [f"refused: {reason}" for reason in status.refused]
    return "\n".join([*lines, *_sum(status)])


def _sum(status: RunStatus) -> list[str]:
    counts = ", ".join(
        f"{count} {'done' if state == 'ok' else state}" for state, count in sorted(status.counts().items())
    )
    left = status.seconds_left()
    ends = f"; about {left:.0f} s left" if left else ""
    lines = [f"{status.suite}: {counts}{ends}" + ("; running now" if status.running else "")]
    if status.memory is not None:
        lines.append(f"  memory: {_held(status.memory)}")
    if status.now is not None and status.now.phase is not None:
        lines.append(f"  {_doing(status.now)}")
    return lines


def _held(memory: Memory) -> str:
    """`at most 1.60 GB so far (2.00 GB predicted, and 0.10 GB of mapped stores)`."""
    shown = f"at most {_gigabytes(memory.peak)} so far"
    if memory.predicted is None:
        return shown
    mapped = f", and {_gigabytes(memory.mapped)} of mapped stores" if memory.mapped else ""
    return f"{shown} ({_gigabytes(memory.predicted)} predicted{mapped})"


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.2f} GB"


def _doing(now: Now) -> str:
    """`training 6 cells, 45%, for 12 s`."""
    shown = [f"{now.phase} {now.detail or ''}".rstrip()]
    if now.done is not None and now.total:
        shown.append(f"{100 * min(1.0, now.done / now.total):.0f}%")
    if now.note:
        shown.append(now.note)
    if (seconds := now.seconds()) is not None:
        shown.append(f"for {seconds:.0f} s")
    return ", ".join(shown)
