"""`saebench leaderboard`: the page from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from saebench.cli.common import Named, common, emit


@click.command("leaderboard")
@click.argument("folders", nargs=-1, required=True, type=Named(), metavar="DIR...")
@click.option(
    "--out",
    type=Named(),
    help="Folder for index.html, README.md and data.json. Default: DIR/leaderboard for a run folder.",
)
@common
def command(folders: tuple[Path, ...], out: Path | None, plugins: tuple[Path, ...], debug: bool) -> None:
    """Rebuild the leaderboard from records, offline; equal records give equal bytes."""
    from saebench.leaderboard import build

    target = out or folders[0] / "leaderboard"
    build(list(folders), target)
    emit(str(target / "index.html"))
