"""`saebench schema`: for editors that check YAML while it is written."""

from __future__ import annotations

import json
from pathlib import Path

import click

from saebench.cli.common import common, emit, plugin_files, say


@click.command("schema")
@common
@plugin_files
def command(plugins: tuple[Path, ...], debug: bool) -> None:
    """Print the JSON schema of the suite file."""
    from saebench.config import json_schema
    from saebench.host import load_catalog

    emit(json.dumps(json_schema(load_catalog(plugins, say)), indent=2, sort_keys=True))
