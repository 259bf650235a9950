"""`saebench match`: exact one-to-one matching of two SAEs, with a certificate and the level of chance."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from saebench.cli.common import Named, common, emit, loading_torch, plugin_files, say
from saebench.console import phase, showing

_FILE = Named(dir_okay=False)


@click.command("match")
@click.argument("a", type=Named())
@click.argument("b", type=Named())
@click.option(
    "--which",
    type=click.Choice(["decoder", "encoder", "both"]),
    default="decoder",
    show_default=True,
    help="Directions to match by; both: the mean of the two cosines.",
)
@click.option("--absolute", is_flag=True, help="Match by |cosine|. Always so where latents are signed.")
@click.option("--threshold", type=float, default=0.7, show_default=True, help="A pair over this cosine is shared.")
@click.option("--no-null", is_flag=True, help="Leave out the scores of random directions.")
@click.option("--picture", type=_FILE, metavar="FILE", help="Write a picture: .svg, .png or .html.")
@click.option("--out", type=_FILE, metavar="FILE", help="Write all numbers and the pairs as JSON.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Longest time of one matching."
)
@click.option("--solver", type=click.Choice(["auto", "scipy", "ortools"]), default="auto", show_default=True)
@click.option("--device", default="cpu", show_default=True, metavar="D", help="cpu, cuda, cuda:1, ...")
@common
@plugin_files
def command(
    a: Path,
    b: Path,
    which: str,
    absolute: bool,
    threshold: float,
    no_null: bool,
    picture: Path | None,
    out: Path | None,
    as_json: bool,
    time_limit: float | None,
    solver: str,
    device: str,
    plugins: tuple[Path, ...],
    debug: bool,
) -> None:
    """Match the latents of two SAEs one to one.

    A and B are checkpoint folders of a run, records of its cells, folders of
    SAELens, sparsify, dictionary_learning, OpenMOSS or Gemma Scope, or files
    (.safetensors, .npz, .npy, .pt) with a decoder, a row a latent. The
    matching maximises the summed cosine; how far it can be from the best is
    proven and shown. A limit gives the best found with its gap.
    """
    if out is not None and out == picture:
        raise click.UsageError(f"--out and --picture: both name {out}. Give each a file of its own.")
    if not 0 <= threshold < 1:
        raise click.UsageError(f"--threshold {threshold:g}: a cosine from 0 up to, not including, 1 is allowed.")

    with showing(), loading_torch():
        from saebench.artifacts.output import check_output, write_output
        from saebench.compare.pair import MADE_BY, match_folders
        from saebench.compare.picture import check_path, save_picture
        from saebench.compare.terminal import page
        from saebench.measure.machine import check_device

        check_device(device)
    mark = re.compile(rf'\A\{{"made_by": "{MADE_BY}"'.encode())
    if out is not None:
        check_output(out, mark)  # before anything is computed
    if picture is not None:
        check_path(picture)
    options: dict[str, Any] = {"solver": solver}
    if time_limit is not None:
        options["time_limit_s"] = time_limit
    if device != "cpu":
        options["device"] = device
    with showing(), phase("comparing", "two SAEs"):
        comparison = match_folders(
            a,
            b,
            which=which,  # type: ignore[arg-type]
            signed=False if absolute else None,
            threshold=threshold,
            null=not no_null,
            plugins=plugins,
            say=say,
            **options,
        )
    text = json.dumps(comparison.to_json(), indent=None, allow_nan=False)
    if out is not None:
        write_output(out, f"{text}\n".encode(), mark)
        say(f"written: {out}")
    if picture is not None:
        save_picture(comparison, picture)
        say(f"written: {picture}")
    emit(text if as_json else page(comparison))
