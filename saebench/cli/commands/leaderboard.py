"""`saebench leaderboard`: the page from records alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from saebench.cli.common import Named, common, emit, say
from saebench.console import phase, showing

_ATTEMPTS = 10


@click.command("leaderboard")
@click.argument("folders", nargs=-1, required=True, type=Named(), metavar="DIR...")
@click.option(
    "--out",
    type=Named(),
    help="Folder for index.html, README.md and data.json. Default: DIR/leaderboard for a run folder.",
)
@common
def command(folders: tuple[Path, ...], out: Path | None, debug: bool) -> None:
    """Rebuild the leaderboard from records, offline; equal records give equal bytes.

    A record that cannot be read is left out and named, on the page too. A file
    of --out that saebench did not make is not replaced.
    """
    from saebench.execute.lock import shared
    from saebench.leaderboard import build

    target = out or folders[0] / "leaderboard"
    with (
        showing(),
        phase("leaderboard", str(target)),
        shared(target.parent),
    ):  # a run that begins waits a moment: it would sweep what is being written
        for _ in range(_ATTEMPTS):
            before = _records(folders)
            lines: list[str] = []
            build(list(folders), target, say=lines.append)
            if _records(folders) == before:  # else a run wrote records meanwhile, and perhaps newer pages
                break
    for line in lines:
        say(line)
    emit(str(target / "index.html"))


def _records(folders: tuple[Path, ...]) -> set[tuple[Path, int]]:
    """All record files with their times."""
    from saebench.artifacts import RunFolder

    found = set()
    for run in map(RunFolder, folders):
        for path in (*run.record_paths(), *run.group_paths()):
            with suppress(OSError):
                found.add((path, path.stat().st_mtime_ns))
    return found
