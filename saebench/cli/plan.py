"""`saebench plan`: what a suite would do."""

from __future__ import annotations

import json
from pathlib import Path

import click

from saebench.cli.common import common


@click.command("plan")
@click.argument("suite")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@common
def command(suite: str, as_json: bool, plugins: tuple[Path, ...], debug: bool) -> None:
    """Show cells, cohorts, order, shares and predicted cost; train nothing."""
    from saebench.jobs import plan_suite
    from saebench.plan import print_plan

    plan = plan_suite(suite, plugins=plugins)
    click.echo(json.dumps(plan.to_json(), indent=2, sort_keys=True) if as_json else print_plan(plan))
