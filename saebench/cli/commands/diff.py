"""`saebench diff`: do two runs have the same facts?"""

from __future__ import annotations

from pathlib import Path

import click

from saebench.cli.common import Named, common, emit

DIFFERENT = 6


@click.command("diff")
@click.argument("a", type=Named())
@click.argument("b", type=Named())
@click.option("--all", "show_all", is_flag=True, help="Show every difference, not the first 20.")
@common
def command(a: Path, b: Path, show_all: bool, debug: bool) -> int:
    """Compare the facts of two folders that hold records/.

    Exit status 0 when they are equal, 6 when they differ. Times, memory and
    host are measured, not facts, and are not compared.
    """
    from saebench.leaderboard import diff

    differences = diff(a, b)
    if not differences:
        emit("equal facts")
        return 0
    shown = differences if show_all else differences[:20]
    for difference in shown:
        emit(str(difference))
    if len(shown) < len(differences):
        emit(f"... and {len(differences) - len(shown)} more (--all shows them)")
    return DIFFERENT
