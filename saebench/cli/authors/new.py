"""`saebench new`: a plugin package to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from saebench.cli.authors.scaffold import KINDS, write_package
from saebench.cli.common import Named, common, emit


@click.command("new")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--folder", type=Named(), metavar="DIR", help="Where to write it. Default: a new folder of its name.")
@common
def command(kind: str, name: str, folder: Path | None, debug: bool) -> None:
    """Write a package that adds a plugin, and passes its checks as it is.

    NAME is lower-case, with hyphens: my-sae.
    """
    folder = folder or Path(f"saebench-{name}")
    for path in write_package(kind, name, folder):
        emit(str(path))
    emit(f"\nNext: cd {folder} && pip install -e . && saebench check {name}")
