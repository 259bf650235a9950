"""`saebench check`: whether a plugin keeps its contract."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click
import yaml

from saebench.api.errors import SuiteError
from saebench.api.specs import resolve
from saebench.cli.common import common, emit, loading_torch, plugin_files, say
from saebench.console import showing

BROKEN = 3
"""Exit status where a check failed: a plugin breaks its contract."""


@click.command("check")
@click.argument("name")
@click.option(
    "--set",
    "values",
    multiple=True,
    metavar="KEY=VALUE",
    help="A config key or option to try it with. May be given several times.",
)
@common
@plugin_files
def command(name: str, values: tuple[str, ...], plugins: tuple[Path, ...], debug: bool) -> int:
    """Check an architecture, a dataset, a metric, or all of a package.

    NAME is its name, or that of its package. Each rule is one line: pass,
    fail with what was found and a hint, or skip with the reason.
    """
    from saebench.host import load_catalog

    given = dict(map(_pair, values))
    with showing():
        catalog = load_catalog(plugins, say)
        with loading_torch():
            # by name, as plugins are: the checks lie beside the command line, not below it
            check_plugin = resolve("saebench.testing.plugin:check_plugin")
        counts: Counter[str] = Counter()
        for checked in check_plugin(name, catalog, given):
            emit(checked.what, bold=True)
            for check in checked.checks:
                counts[check.status] += 1
                emit(f"  {check.status}  {check.name}" + (f": {check.message}" if check.status == "skip" else ""))
                if check.failed:
                    emit(f"        found: {check.message}\n        hint:  {check.hint}")
    emit(f"{counts['pass']} pass, {counts['fail']} fail, {counts['skip']} skip")
    return BROKEN if counts["fail"] else 0


def _pair(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise SuiteError(f"--set {text}: not KEY=VALUE. Write it like --set k=4.")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise SuiteError(f"--set {text}: the value is not YAML. Write it like --set k=4.") from error
