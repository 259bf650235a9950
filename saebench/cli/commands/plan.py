"""`saebench plan`: what a suite would do."""

from __future__ import annotations

import json
from pathlib import Path

import click

from saebench.api.errors import SuiteError
from saebench.cli.common import Named, common, emit, loading_torch, plugin_files, say
from saebench.console import showing


@click.command("plan")
@click.argument("suite")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--measure/--no-measure",
    default=None,
    help="Predict seconds from short measurements of this machine, or from an assumption. "
    "By default only long runs are measured.",
)
@click.option("--fresh", is_flag=True, help="Measure this machine again. Default: once a week.")
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    metavar="D",
    help="Where it would run: cpu, cuda, or a card that is elsewhere (h100, a100-80gb, ...).",
)
@click.option("--out", type=Named(), metavar="DIR", help="Its run folder. Default: runs/<suite>.")
@common
@plugin_files
def command(
    suite: str,
    as_json: bool,
    measure: bool | None,
    fresh: bool,
    device: str,
    out: Path | None,
    plugins: tuple[Path, ...],
    debug: bool,
) -> int:
    """Show cells, cohorts, order, shares and predicted cost; train nothing.

    Where a run takes more than about five minutes, seconds are predicted
    from short measurements of this machine; the first time these take
    half a minute. For a card that is elsewhere they are assumed from its
    data sheet.
    """
    from saebench.config import load_suite

    with showing():
        load_suite(suite)  # a suite that cannot be read is told before torch is loaded, which takes seconds
        with loading_torch():
            from saebench.jobs import plan_suite
            from saebench.plan.print import print_plan

        plan = plan_suite(suite, out=out, device=device, measure=measure, fresh=fresh, plugins=plugins, say=say)
    emit(json.dumps(plan.to_json(), indent=2, sort_keys=True) if as_json else print_plan(plan))
    for refused in plan.refused:
        say(f"refused: {refused.reason}")
    return SuiteError.exit_status if plan.refused else 0
