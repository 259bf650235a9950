"""`saebench init`: the way in without writing YAML."""

from __future__ import annotations

from pathlib import Path

import click

from saebench.cli.common import common, emit, loading_torch, plugin_files
from saebench.console import phase, showing


@click.command("init")
@click.option("--model", required=True, metavar="M", help="docs-lm, a folder, or a hub id.")
@click.option("--text", required=True, metavar="F", help="A file or folder: txt, jsonl, jsonl.gz, parquet.")
@click.option("--hookpoint", metavar="H", help="Default: the middle block.")
@common
@plugin_files
def command(model: str, text: str, hookpoint: str | None, plugins: tuple[Path, ...], debug: bool) -> None:
    """Print a suite for your own model and text.

    Save it and run it: saebench init --model M --text F > mine.yaml; saebench
    run mine.yaml
    """
    with showing():
        with loading_torch():
            from saebench.jobs import starter

        with phase("loading", model):
            suite = starter(model, text, hookpoint=hookpoint, plugins=plugins)
    emit(suite, end="")
