"""The scaling chart of docs/performance.md, from what `run.py` wrote."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import altair as alt
import click
import vl_convert

NAMES = {"dense": "dense SciPy", "scipy": "ours", "ortools": "ours, with OR-tools"}


@click.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/matching-scaling.svg"))
def main(results: tuple[Path, ...], out: Path) -> None:
    """Draws seconds over latents of all RESULTS (matching.json files), medians over rounds."""
    rows = []
    for path in results:
        for key, found in json.loads(path.read_text("utf-8"))["done"].items():
            kind, n, method = key.split()
            seconds = statistics.median(one["seconds"] for one in found)
            pair = {"sae": "trained decoders", "mix": "mixed"}.get(kind, kind)
            rows.append({"latents": int(n), "seconds": seconds, "method": NAMES[method], "pair": pair})
    rows = [row for row in rows if row["latents"] >= 512]
    x = alt.X("latents:Q", title="latents a side", scale=alt.Scale(type="log", base=2), axis=alt.Axis(format=",d"))
    y = alt.Y(
        "seconds:Q",
        title="seconds",
        scale=alt.Scale(type="log", domain=[0.005, 200]),
        axis=alt.Axis(values=[0.01, 0.1, 1, 10, 100], format="~g"),
    )
    colours = alt.Scale(domain=list(NAMES.values()), range=["#8c8c8c", "#1f77b4", "#e6842a"])
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_line(point=True)
        .encode(
            x,
            y,
            alt.Color("method:N", scale=colours, title=None),
            alt.StrokeDash("pair:N", sort=["trained decoders", "mixed"], legend=None),
        )
        .properties(width=520, height=300, background="white", title="solid: trained decoders; dashed: mixed pairs")
        .configure_legend(orient="bottom")
        .configure_title(fontSize=11, fontWeight="normal")
    )
    out.write_text(vl_convert.vegalite_to_svg(chart.to_dict()), encoding="utf-8")


if __name__ == "__main__":
    main()
