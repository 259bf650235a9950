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

    catalog = load_catalog(plugins, say)
    configs = {name: registered.spec.config for name, registered in catalog.architectures.items()}
    options = {name: registered.spec.options for name, registered in catalog.datasets.items()}
    emit(json.dumps(json_schema(configs, options), indent=2, sort_keys=True))
