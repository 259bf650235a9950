"""Which charts a site has. One Vega-Lite specification gives the interactive chart and the SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import altair as alt

from saebench.leaderboard.look import theme
from saebench.leaderboard.plots import (
    HEIGHT,
    STREAMS,
    density_chart,
    density_points,
    ffr_chart,
    fidelity_chart,
    fidelity_metrics,
    stability_chart,
    threshold,
)


def site_charts(site: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Charts of one site, in order: `{id, title, caption, label, spec}` with a Vega-Lite specification each; those without data are absent."""
    charts = []
    for metric, title in fidelity_metrics(site):
        spec = fidelity_chart(site, metric, title)
        charts.append(
            (
                "fidelity-" + metric,
                f"{title} against L0",
                "Mean over init seeds; bars are 95 % t-intervals in both directions. Up and to the left is better.",
                spec,
            )
        )
    if points := list(density_points(site)):
        charts.append(
            (
                "density",
                "Density of latents",
                "Share of latents by how often they fire (log10 of density, mean over seeds). The number on the right is the share that never fired.",
                density_chart(points),
            )
        )
    if any(row["columns"][key]["value"] is not None for row in site["rows"] for key in STREAMS):
        charts.append(
            (
                "ffr",
                "Fake feature ratio",
                f"Share of latents with density above {threshold(site)} on each stream. Lower is better.",
                ffr_chart(site),
            )
        )
    if any(row["columns"]["matched-cosine"]["value"] is not None for row in site["rows"]):
        charts.append(
            (
                "stability",
                "Stability over init seeds",
                "Mean decoder cosine under exact one-to-one matching, and the level that chance reaches; SFR among latents alive in both.",
                stability_chart(site),
            )
        )
    return [
        {
            "id": f"{site['id']}-{name}",
            "title": title,
            "caption": caption,
            "spec": chart.properties(width="container").to_dict(),
        }
        for name, title, caption, chart in charts
    ]


def chart_svg(board: Mapping[str, Any]) -> str | None:
    """The fidelity charts of the first site side by side, as SVG on white; None where nothing was measured."""
    import vl_convert

    for suite in board["suites"]:
        for site in suite["sites"]:
            charts = [
                fidelity_chart(site, metric, title).properties(width=360, height=HEIGHT, title=title)
                for metric, title in fidelity_metrics(site)
            ]
            if charts:
                whole = alt.hconcat(*charts[:2], title=f"{suite['name']}: {site['title']}").resolve_scale(
                    color="shared", shape="shared"
                )
                return str(vl_convert.vegalite_to_svg(json.dumps(whole.configure(**theme(dark=False)).to_dict())))
    return None
