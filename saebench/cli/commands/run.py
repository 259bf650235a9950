"""`saebench run`: from a suite to a leaderboard."""

from __future__ import annotations

from pathlib import Path

import click

from saebench.cli.common import Named, common, emit, loading_torch, plugin_files, say
from saebench.console import showing


@click.command("run")
@click.argument("suite", default="quickstart")
@click.option("--out", type=Named(), metavar="DIR", help="Run folder. Default: runs/<suite>.")
@click.option("--device", default="cpu", show_default=True, metavar="D", help="cpu, cuda, cuda:1, ...")
@click.option("--executor", type=click.Choice(["local"]), default="local", show_default=True, help="Where cells run.")
@click.option("--backend", metavar="NAME", help="Force a numeric back end (`saebench bench-backends` advises).")
@click.option("--only", metavar="ENTRY", help="Only this entry and what it starts from; shares stay as they are.")
@click.option("--retry-failed", is_flag=True, help="Run the cells again that did not end ok.")
@click.option("--fresh", is_flag=True, help="Move an older run folder aside and start again.")
@click.option("--force-folder", is_flag=True, help="Work in a folder that holds other files. They are kept.")
@common
@plugin_files
def command(
    suite: str,
    out: Path | None,
    device: str,
    executor: str,
    backend: str | None,
    only: str | None,
    retry_failed: bool,
    fresh: bool,
    force_folder: bool,
    plugins: tuple[Path, ...],
    debug: bool,
) -> int:
    """Plan, train, score, write records and build the leaderboard.

    SUITE is a file or a built-in name (default: quickstart). Run the same
    command again to continue where it stopped.
    """
    from saebench.config import load_suite

    try:
        with showing():
            load_suite(suite)  # a suite that cannot be read is told before torch is loaded, which takes seconds
            with loading_torch():
                from saebench.jobs import run_suite
                from saebench.measure.backends.choice import forced
                from saebench.measure.machine import check_device

                check_device(device)
            with forced(backend, device):
                result = run_suite(
                    suite,
                    out=out,
                    device=device,
                    only=only,
                    retry_failed=retry_failed,
                    fresh=fresh,
                    force_folder=force_folder,
                    plugins=plugins,
                    say=say,
                    debug=debug,
                )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("Run the same command again to continue where it stopped.")
        raise
    emit(result.table)
    for reason in result.refused:
        say(f"refused: {reason}")
    if bad := sum(status != "ok" for status in result.statuses.values()):
        say(
            f"{bad} of {len(result.statuses)} cells did not end ok; their records say why. Mend the cause, then run "
            "again with --retry-failed; --debug shows the traceback."
        )
    emit(f"leaderboard: {result.leaderboard / 'index.html'}")
    return result.exit_status
