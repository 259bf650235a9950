"""`saebench diff`: do two runs have the same facts?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saebench.cli.common import Named, common, emit

if TYPE_CHECKING:
    from saebench.leaderboard import Comparison, Difference, Moved

DIFFERENT = 6
SHOWN = 20


@click.command("diff")
@click.argument("a", type=Named())
@click.argument("b", type=Named())
@click.option(
    "--tolerant",
    is_flag=True,
    help="Runs of two machines: scores, curves and FLOPs may differ by less than their noise; the rest must be equal.",
)
@click.option("--all", "show_all", is_flag=True, help=f"Show every difference, not the first {SHOWN}.")
@common
def command(a: Path, b: Path, tolerant: bool, show_all: bool, debug: bool) -> int:
    """Compare the facts of two folders that hold records/.

    Exit status 0 when they are equal (with --tolerant: within tolerance), 6
    when they differ. Times, memory and host are measured, not facts, and are
    not compared.
    """
    from saebench.leaderboard import diff, diff_tolerant, ways

    shown = None if show_all else SHOWN
    if tolerant:
        return _within(diff_tolerant(a, b), shown)
    differences = diff(a, b)
    if not differences:
        emit("equal facts")
        return 0
    _list(differences, shown)
    if made := ways(a, b):
        emit(f"{_ways(made)} Bits differ then: --tolerant tells whether scores differ by more than noise.")
    return DIFFERENT


def _within(found: Comparison, shown: int | None) -> int:
    if found.differences:
        _list(found.differences, shown)
        emit()
    if outside := found.outside:
        emit(f"More apart than is allowed ({len(outside)}), the furthest first:")
        _table(outside, shown)
        emit()
    if found.resampled:
        emit(
            f"Computed, and not equal bit for bit on both sides: {', '.join(found.resampled)}. A model's samples and "
            "synthetic vectors follow the arithmetic of the machine."
        )
    if found.ways:
        emit(_ways(found.ways))
    emit(f"{len(found.moved)} values are not equal bit for bit; {found.n_values} scores were compared.")
    if not found.within:
        return DIFFERENT
    if found.moved:
        nearest = found.moved[0]
        emit(f"All within tolerance. Nearest to it: {nearest.where}: {nearest.key}, {nearest.share:.0%} of it.")
    else:
        emit("equal within tolerance")
    return 0


def _list(differences: Sequence[Difference], shown: int | None) -> None:
    for difference in differences[:shown]:
        emit(str(difference))
    _rest(len(differences), shown)


def _table(outside: Sequence[Moved], shown: int | None) -> None:
    from tabulate import tabulate

    rows = [
        (value.where, value.key, f"{value.a:.6g}", f"{value.b:.6g}", f"{value.apart:.2g}", f"{value.allowed:.2g}")
        for value in outside[:shown]
    ]
    emit(tabulate(rows, ["record", "value", "a", "b", "difference", "allowed"], disable_numparse=True))
    _rest(len(outside), shown)


def _rest(n: int, shown: int | None) -> None:
    if shown is not None and n > shown:
        emit(f"... and {n - shown} more (--all shows them)")


def _ways(ways: Sequence[tuple[str, str, str]]) -> str:
    return "Made in two ways: " + "; ".join(f"{what} {a} against {b}" for what, a, b in ways) + "."
