"""Which charts a site has. One Vega-Lite specification gives the interactive chart and the SVG."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
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
    capitalised,
    columns_against_l0,
    density_chart,
    density_rows,
    family_chart,
    fidelity_chart,
)
from saebench.leaderboard.charts.theme import specification, theme, with_generator
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.site import Board, Site

_BETTER = {"higher": "Up and to the left is better.", "lower": "Down and to the left is better."}


@dataclass(frozen=True)
class Chart:
    """A chart of a page: its Vega-Lite specification, and what is written around it."""

    id: str
    title: str
    caption: str
    spec: dict[str, Any]


def site_charts(site: Site, columns: Sequence[TableColumn]) -> list[Chart]:
    """Charts of one site, in order; those without data are absent."""
    charts = []
    bars = "Mean over init seeds; bars are 95 % t-intervals in both directions."
    for column in columns_against_l0(site, columns):
        title, caption = f"{capitalised(column.alone)} against L0", f"{bars} {_BETTER.get(column.direction, '')}"
        charts.append((f"fidelity-{column.id}", title, caption.strip(), fidelity_chart(site, column)))
    if rows := density_rows(site):
        caption = (
            "Share of latents by how often they fire (log10 of density, mean over seeds). "
            "The number on the right is the share that never fired."
        )
        charts.append(("density", "Density of latents", caption, density_chart(rows)))
    for family, found in _families(site, columns):
        hints = "; ".join(f"{column.name}: {column.hint}" for column in found)
        directions = {column.direction for column in found} - {"neutral"}
        better = f" {capitalised(directions.pop())} is better." if len(directions) == 1 else ""
        charts.append((_slug(family), capitalised(family), f"{capitalised(hints)}.{better}", family_chart(site, found)))
    return [_described(site, *chart) for chart in charts]


def _families(site: Site, columns: Sequence[TableColumn]) -> Iterator[tuple[str, list[TableColumn]]]:
    """Metrics that are dots of their family's chart and have a value here."""
    measured = [
        column
        for column in columns
        if column.chart == "dots" and any(row.shown(column).value is not None for row in site.rows)
    ]
    for family, found in groupby(measured, key=lambda column: column.family):
        yield family, list(found)


def _slug(text: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in text.lower())


def agreement_charts(site: Site) -> dict[str, list[Chart]]:
    """Charts of agreement between seeds (`seeds`) and between datasets (`across`), in the form of `site_charts`."""
    one = "One row an entry, at its largest L0."
    found = "A latent is found again in another seed where its matched partner there has a cosine above 0.7."
    bins = (
        "Bars are 95 % jackknife intervals over seeds, size is the number of latents in a bin; bins of fewer than "
        f"{FEW} are faint."
    )
    seeds: list[tuple[str, str, str, Any]] = []
    if any(row.value("matched-cosine") is not None for row in site.rows):
        caption = (
            "Mean decoder cosine under exact one-to-one matching, and the level that chance reaches; SFR among "
            "latents alive in both. Bars are 95 % jackknife intervals over seeds."
        )
        seeds.append(("stability", "Agreement and chance", caption, stability_chart(site)))
    caption = (
        "SFR at every threshold, not 0.7 alone (dotted), with 95 % jackknife bands; dashed, what random directions "
        "of the same shape reach (grey where it is the same for all). Bands and chance are shown where they were "
        f"recorded. {one}"
    )
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
    caption = (
        "Distinct alive latents that k seeds find together, and the extrapolated total (capture-recapture) with its "
        "95 % interval. Seeds are taken as independent draws from one closed dictionary. The total bounds nothing, "
        f"and is given only where cosine thresholds of 0.6 to 0.8 agree on it. {one}"
    )
    seeds.append(("distinct", "How large is the idealised dictionary?", caption, distinct_chart(site)))
    caption = (
        "SFR alive between SAEs of one architecture that differ in the seed, in the training dataset or in both; 95 "
        "% jackknife intervals over seeds. Equal seeds start from equal weights, which lifts “other dataset”."
    )
    across = [("across", "What changes the latents more?", caption, across_chart(site))]
    kinds = {"seeds": seeds, "across": across}
    return {
        kind: [_described(site, *chart) for chart in charts if chart[3] is not None] for kind, charts in kinds.items()
    }


def _described(site: Site, name: str, title: str, caption: str, chart: alt.LayerChart) -> Chart:
    return Chart(f"{site.id}-{name}", title, caption, specification(chart.properties(width="container")))


def chart_svg(board: Board) -> str | None:
    """The first two charts against L0 of the first site side by side, as SVG on white.

    None where nothing was measured.
    """
    import vl_convert

    for suite in board.suites:
        for site in suite.sites:
            charts = [
                fidelity_chart(site, column).properties(width=360, height=HEIGHT, title=capitalised(column.alone))
                for column in columns_against_l0(site, board.columns)
            ]
            if charts:
                whole = alt.hconcat(*charts[:2], title=f"{suite.name}: {site.title}").resolve_scale(
                    color="shared", shape="shared"
                )
                with console.phase("leaderboard", "chart"):
                    svg = vl_convert.vegalite_to_svg(json.dumps(specification(whole.configure(**theme(dark=False)))))
                return with_generator(str(svg), "saebench leaderboard")
    return None
