"""The picture of one matching: how close the pairs are beside chance, and the best-matched pairs among themselves.

One Vega-Lite specification is saved as svg or png, or as one html file that makes no outside request.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt
import numpy as np

from saebench.api.errors import SuiteError
from saebench.artifacts.output import check_output, write_output
from saebench.leaderboard.charts.theme import PALETTE, theme, with_generator
from saebench.matching.agreement.cosines import BINS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.compare.pair import Comparison

    Floats = NDArray[np.float64]

MARKS = {
    ".svg": re.compile(rb"<!-- Generator: saebench match -->"),
    ".png": re.compile(rb"tEXtSoftware\x00saebench match"),
    ".html": re.compile(rb'<meta name="generator" content="saebench match">'),
}
"""By ending: what every picture of ours holds."""
SUFFIXES = tuple(MARKS)
BLOCK = 64
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:"
_STYLE = (
    "body { margin: 24px; font: 15px/1.5 system-ui, sans-serif; } "
    "@media (prefers-color-scheme: dark) { body { background: #14171a; } }"
)
_DRAW = (
    'const draw = () => vegaEmbed("#picture", spec, {actions: false, renderer: "svg", '
    'tooltip: {theme: dark.matches ? "dark" : "light"}, config: themes[dark.matches ? "dark" : "light"]});'
)
_SIZE = 300
_PAIRS, _CHANCE = "matched pairs", "random directions"


def check_path(path: Path) -> None:
    """Refuses a name whose ending is no picture, or that something else has.

    Raises:
        SuiteError: Names the endings that are, or the file that saebench did not make.
    """
    if path.suffix not in SUFFIXES:
        raise SuiteError(f"--picture {path}: a picture ends in {', '.join(SUFFIXES)}. Rename it.")
    check_output(path, MARKS[path.suffix])


def save_picture(comparison: Comparison, path: str | Path) -> None:
    """Draws a comparison into a file.

    Raises:
        SuiteError: The name ends in none of `SUFFIXES`, or saebench did not make the file that is there.
        MachineError: The file cannot be written.
    """
    import vl_convert

    path = Path(path)
    check_path(path)
    chart = _chart(comparison)
    if path.suffix == ".html":
        write_output(path, _page(chart.to_dict(), comparison).encode(), MARKS[".html"])
        return
    text = json.dumps(chart.configure(**theme(dark=False)).to_dict())
    if path.suffix == ".svg":
        svg = str(vl_convert.vegalite_to_svg(text))
        # the library numbers gradients through the life of the process; the picture has one
        svg = re.sub(r"\bgradient_\d+", "gradient_0", svg)
        write_output(path, with_generator(svg, "saebench match").encode(), MARKS[".svg"])
    else:
        write_output(path, _with_software(bytes(vl_convert.vegalite_to_png(text, scale=2))), MARKS[".png"])


def _with_software(png: bytes) -> bytes:
    """The image with a text chunk that says who made it, behind its header."""
    text = b"tEXtSoftware\x00saebench match"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return png[:33] + chunk + png[33:]


def best_block(comparison: Comparison, size: int = BLOCK) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """Latents of A and of B in the best-matched pairs, and all cosines between them `[s, s]`, s = min(size, pairs).

    Pairs that resemble each other are side by side: average linkage on 1 - |cos| of A's directions, leaves in optimal
    order, so that families of latents show as blocks and the pairs themselves as the diagonal.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    from saebench.matching import cosine_matrix

    matching = comparison.scores.matching
    best = np.argsort(-matching.cosines, kind="stable")[:size]
    a, b = comparison.directions
    rows, columns = a[matching.rows[best]], b[matching.columns[best]]
    if len(best) > 2:
        distance = 1 - np.abs(cosine_matrix(rows, rows))
        np.fill_diagonal(distance, 0)
        apart = squareform(np.clip((distance + distance.T) / 2, 0, 1), checks=False)
        order = leaves_list(linkage(apart, "average", optimal_ordering=True))
        best, rows, columns = best[order], rows[order], columns[order]
    cosines = cosine_matrix(rows, columns)
    return matching.rows[best], matching.columns[best], cosines if comparison.signed else np.abs(cosines)


def _chart(comparison: Comparison) -> alt.HConcatChart:
    a, b = comparison.a, comparison.b
    names = [f"{label}: {side.kind}, {side.detail or side.path.name}" for label, side in (("A", a), ("B", b))]
    sizes = (
        f"{a.d_sae:,} and {b.d_sae:,} latents of width {a.decoder.shape[1]:,}, one-to-one by {comparison.matched_by}"
    )
    title = alt.Title(names, subtitle=sizes, subtitleColor="#7d8791", offset=14)
    return alt.hconcat(_histograms(comparison), _matrix(comparison), title=title, spacing=50).resolve_scale(
        color="independent"
    )


def _histograms(comparison: Comparison) -> alt.LayerChart:
    cosines = np.clip(comparison.scores.matching.cosines, -1, 1)
    shares = {_PAIRS: np.histogram(cosines, BINS)[0] / max(1, len(cosines))}
    if comparison.null is not None:
        shares[_CHANCE] = np.array(comparison.null.histogram)
    used = np.flatnonzero(sum(shares.values()))
    values = [
        {"what": what, "low": BINS[i], "high": BINS[i + 1], "share": float(share[i])}
        for what, share in shares.items()
        for i in np.flatnonzero(share)
    ]
    low = min(0.0, BINS[used[0]])
    x_scale = alt.Scale(domain=[low, 1.0], nice=False)
    bars = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(opacity=0.72, binSpacing=0)
        .encode(
            x=alt.X("low:Q", title="cosine of a pair", scale=x_scale, bin="binned"),
            x2="high:Q",
            y=alt.Y("share:Q", title="share of pairs", stack=None, axis=alt.Axis(format="~%", tickCount=6)),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=list(shares), range=[PALETTE[0], PALETTE[7]][: len(shares)]),
                legend=alt.Legend(symbolType="square", orient="bottom"),
            ),
            tooltip=[
                alt.Tooltip("what:N", title=" "),
                alt.Tooltip("low:Q", title="from", format=".2f"),
                alt.Tooltip("high:Q", title="to", format=".2f"),
                alt.Tooltip("share:Q", title="share", format=".2%"),
            ],
        )
    )
    mark = alt.Chart(alt.Data(values=[{"at": comparison.threshold, "label": f"SFR counts > {comparison.threshold:g}"}]))
    rule = mark.mark_rule(strokeDash=[4, 3]).encode(x=alt.X("at:Q", scale=x_scale))
    label = mark.mark_text(align="right", baseline="top", dx=-5, y=2, fontSize=11).encode(
        x=alt.X("at:Q", scale=x_scale), text="label:N"
    )
    return alt.layer(bars, rule, label).properties(width=380, height=_SIZE, title=_title("How close the pairs are"))


def _matrix(comparison: Comparison) -> alt.Chart:
    rows, columns, cosines = best_block(comparison)
    values = [
        {"i": i, "j": j, "a": int(rows[i]), "b": int(columns[j]), "cos": round(float(cosines[i, j]), 3)}
        for i in range(len(rows))
        for j in range(len(columns))
    ]
    n = len(rows)
    shown = alt.Axis(labels=False, ticks=False, grid=False, domain=False)
    domain = [-1, 0, 1] if comparison.signed else [0, 1]
    colours = ["#b2182b", "#f4f5f6", "#1b5a94"][-len(domain) :]
    return (
        alt.Chart(alt.Data(values=values))
        .transform_calculate(i2="datum.i + 1", j2="datum.j + 1")
        .mark_rect(strokeWidth=0, aria=False)
        .encode(
            x=alt.X("j:Q", title="their partners in B", scale=alt.Scale(domain=[0, n], nice=False), axis=shown),
            x2="j2:Q",
            y=alt.Y("i:Q", title="latents of A", scale=alt.Scale(domain=[n, 0], nice=False), axis=shown),
            y2="i2:Q",
            color=alt.Color(
                "cos:Q",
                scale=alt.Scale(domain=domain, range=colours, interpolate="rgb"),
                legend=alt.Legend(title="cosine", orient="right", gradientLength=_SIZE - 40, values=domain),
            ),
            tooltip=[
                alt.Tooltip("a:N", title="latent of A"),
                alt.Tooltip("b:N", title="latent of B"),
                alt.Tooltip("cos:Q", title="cosine"),
            ],
        )
        .properties(width=_SIZE, height=_SIZE, title=_title(f"The {n} best-matched pairs, relatives side by side"))
    )


def _title(text: str) -> alt.Title:
    return alt.Title(text, frame="group", offset=8)


def _page(spec: dict[str, Any], comparison: Comparison) -> str:
    from saebench.leaderboard.pages.html import chart_library, script_json

    themes = script_json({"light": {**theme(dark=False), "background": "transparent"}, "dark": theme(dark=True)})
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="saebench match">
<title>{escape(f"{comparison.a.path.name} and {comparison.b.path.name}, matched")}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<div id="picture"></div>
<script>{chart_library()}</script>
<script>
const spec = {script_json(spec)}, themes = {themes};
const dark = matchMedia("(prefers-color-scheme: dark)");
{_DRAW}
dark.addEventListener("change", draw);
draw();
</script>
</body>
</html>
"""
