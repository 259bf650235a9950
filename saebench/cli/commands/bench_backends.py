"""`saebench bench-backends`: which numeric back end is the fastest here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saebench.cli.common import common, emit, plugin_files, say
from saebench.console import showing

if TYPE_CHECKING:
    from saebench.cells.plan import Plan

_SIZE = click.IntRange(min=1)


@click.command("bench-backends")
@click.option("--suite", metavar="SUITE", help="Measure the shapes of a suite (file or built-in name).")
@click.option("--large", is_flag=True, help="Also d_in 768, d_sae 24576, k 32, batch 4096.")
@click.option("--d-in", type=_SIZE, metavar="N", help="Width of the activations. [512]")
@click.option("--d-sae", type=_SIZE, metavar="N", help="Latents. [8192]")
@click.option("--k", type=_SIZE, metavar="N", help="Active latents a token. [32]")
@click.option("--batch", type=_SIZE, metavar="N", help="Tokens a step. [2048]")
@click.option("--architecture", metavar="NAME", help="Its training step is measured. [topk]")
@click.option(
    "--backend", "only", multiple=True, metavar="NAME", help="Measure only this one. May be given several times."
)
@click.option(
    "--rounds", type=_SIZE, default=5, show_default=True, help="Each back end is measured once in each round."
)
@click.option("--threads", type=_SIZE, metavar="N", help="Default: as many as a run uses.")
@click.option("--device", default="cpu", show_default=True, metavar="D", help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@common
@plugin_files
def command(
    suite: str | None,
    large: bool,
    d_in: int | None,
    d_sae: int | None,
    k: int | None,
    batch: int | None,
    architecture: str | None,
    only: tuple[str, ...],
    rounds: int,
    threads: int | None,
    device: str,
    as_json: bool,
    plugins: tuple[Path, ...],
    debug: bool,
) -> None:
    """Measure a training step on each numeric back end, and advise.

    Without sizes: TopK at d_in 512, d_sae 8192, k 32, batch 2048. Takes about
    half a minute a shape; keep the machine quiet meanwhile. Nothing is changed:
    a back end is forced by `saebench run --backend NAME`, or by the environment
    variable SAEBENCH_BACKEND.
    """
    given = {"d_in": d_in, "d_sae": d_sae, "k": k, "batch": batch}
    sizes = {name: value for name, value in given.items() if value is not None}
    named = [f"--{name.replace('_', '-')}" for name in sizes]
    if suite is not None and (named or large or architecture):
        clash = [*named, *(["--large"] if large else []), *(["--architecture"] if architecture else [])]
        raise click.UsageError(f"--suite says what is measured. Leave out {', '.join(clash)}.")
    if large and named:
        raise click.UsageError(f"--large adds a shape of its own. Leave it out, or {', '.join(named)}.")

    from saebench.host import load_catalog
    from saebench.measure.backends import choice, report, run
    from saebench.measure.backends import shapes as bench_shapes
    from saebench.measure.machine import check_device, n_threads

    check_device(device)
    chosen, catalog = choice.choice(device, only), load_catalog(plugins, say)
    if suite is not None:
        shapes = bench_shapes.shapes_of_plan(_plan(suite, device, plugins), catalog)
    else:
        references = [bench_shapes.REFERENCE | sizes, *([bench_shapes.LARGE] if large else [])]
        shapes = [
            bench_shapes.shape_of(catalog, architecture or "topk", **reference, sparsity_asked=k is not None)
            for reference in references
        ]
    setting: dict[str, Any] = {"device": device, "rounds": rounds, "threads": threads or n_threads()}
    with showing():
        measured = run.run(shapes, chosen, **setting, plugins=plugins, say=say)
    if as_json:
        emit(json.dumps(report.as_data(measured, chosen, **setting), indent=2, sort_keys=True))
    else:
        emit(report.page(measured, chosen, **setting))


def _plan(suite: str, device: str, plugins: tuple[Path, ...]) -> Plan:
    """Its plan. Only a budget of device seconds needs a measurement of its own, which a run would make as well."""
    from saebench.config import load_suite
    from saebench.jobs import plan_suite

    seconds = load_suite(suite).config.budget.primary == "device_seconds"
    return plan_suite(suite, device=device, measure=seconds, plugins=plugins, say=say)
