"""Which charts a site has. One Vega-Lite specification gives the interactive chart and the SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import altair as alt

from saebench import console
from saebench.leaderboard.charts.agreement import (
    FEW,
    across_chart,
    curve_chart,
    distinct_chart,
    reappearance_chart,
    stability_chart,
)
from saebench.leaderboard.charts.fidelity import (
    HEIGHT,
    STREAMS,
    density_chart,
    density_points,
    ffr_chart,
    fidelity_chart,
    fidelity_metrics,
    threshold,
)
from saebench.leaderboard.charts.theme import theme, with_generator


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
    return [_described(site, *chart) for chart in charts]


def agreement_charts(site: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Charts of agreement between seeds (`seeds`) and between datasets (`across`), in the form of `site_charts`."""
    one = "One row an entry, at its largest L0."
    found = "A latent is found again in another seed where its matched partner there has a cosine above 0.7."
    bins = f"Bars are 95 % jackknife intervals over seeds, size is the number of latents in a bin; bins of fewer than {FEW} are faint."
    seeds: list[tuple[str, str, str, Any]] = []
    if any(row["columns"]["matched-cosine"]["value"] is not None for row in site["rows"]):
        caption = "Mean decoder cosine under exact one-to-one matching, and the level that chance reaches; SFR among latents alive in both. Bars are 95 % jackknife intervals over seeds."
        seeds.append(("stability", "Agreement and chance", caption, stability_chart(site)))
    caption = f"SFR at every threshold, not 0.7 alone (dotted), with 95 % jackknife bands; dashed, what random directions of the same shape reach (grey where it is the same for all). Bands and chance stand where they were recorded. {one}"
    seeds.append(("sfr-curve", "Matched pairs over a threshold", caption, curve_chart(site)))
    caption = f"{found} {bins} {one}"
    seeds.append(
        ("reappearance-density", "Found again, by density", caption, reappearance_chart(site, "density", "density"))
    )
    caption = (
        f"The same against the share of explained variance that goes when the latent alone is silenced. {bins} {one}"
    )
    seeds.append(
        (
            "reappearance-variance",
            "Found again, by share of explained variance",
            caption,
            reappearance_chart(site, "variance", "share of explained variance"),
        )
    )
    caption = f"Distinct alive latents that k seeds find together, and the extrapolated total (capture-recapture) with its 95 % interval. Seeds are taken as independent draws from one closed dictionary; latents that are harder to find than others make it a lower bound. {one}"
    seeds.append(("distinct", "How large is the idealised dictionary?", caption, distinct_chart(site)))
    caption = "SFR alive between SAEs of one architecture that differ in the seed, in the training dataset or in both; 95 % jackknife intervals over seeds. Equal seeds start from equal weights, which lifts “other dataset”."
    across = [("across", "What changes the latents more?", caption, across_chart(site))]
    kinds = {"seeds": seeds, "across": across}
    return {
        kind: [_described(site, *chart) for chart in charts if chart[3] is not None] for kind, charts in kinds.items()
    }


def _described(site: Mapping[str, Any], name: str, title: str, caption: str, chart: alt.LayerChart) -> dict[str, Any]:
    spec = chart.properties(width="container").to_dict()
    return {"id": f"{site['id']}-{name}", "title": title, "caption": caption, "spec": spec}


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
                with console.phase("leaderboard", "chart"):
                    svg = vl_convert.vegalite_to_svg(json.dumps(whole.configure(**theme(dark=False)).to_dict()))
                return with_generator(str(svg), "saebench leaderboard")
    return None
