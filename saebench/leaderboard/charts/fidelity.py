"""Charts of metrics as Vega-Lite specifications: against L0, density of latents, and dots by contender."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from saebench.leaderboard.charts.theme import PALETTE, SHAPES
from saebench.leaderboard.names import natural
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.details import Density
from saebench.leaderboard.tables.row import Row, Shown
from saebench.leaderboard.tables.site import Site

HEIGHT = 260
_ROW = 20


def columns_against_l0(site: Site, columns: Sequence[TableColumn]) -> list[TableColumn]:
    """Metrics that have a chart against L0 here: a single point is a number, not a curve, and is in the table."""
    return [
        column
        for column in columns
        if column.chart == "l0" and sum(row.value(column.id) is not None and row.l0 > 0 for row in site.rows) > 1
    ]


def entries_of(site: Site) -> list[str]:
    """Names of a site's contenders without their points, in the order that decides their colours."""
    return sorted({row.entry for row in site.rows}, key=natural)


def by_name(site: Site) -> list[Row]:
    """Rows by label, k8 before k16."""
    return sorted(site.rows, key=lambda row: natural(row.label))


def entry_colour(site: Site, **settings: Any) -> alt.Color:
    """One colour an entry, the same in every chart of a site."""
    entries = entries_of(site)
    return alt.Color(
        "entry:N",
        scale=alt.Scale(domain=entries, range=[PALETTE[i % len(PALETTE)] for i in range(len(entries))]),
        **settings,
    )


def entry_pick(name: str = "pick") -> alt.Parameter:
    """A press on the legend picks an entry."""
    return alt.selection_point(name=name, fields=["entry"], bind="legend")


def fidelity_chart(site: Site, column: TableColumn) -> alt.LayerChart:
    """Metric against measured L0 (log), a line an entry, t-intervals over seeds as bars."""
    metric, title = column.id, capitalised(column.alone)
    values: list[dict[str, Any]] = []
    for row in site.rows:
        y, x = row.metrics.get(metric), row.metrics.get("l0")
        if y and x and y.value is not None and x.value:
            half, l0_half = y.half or 0.0, x.half or 0.0
            values.append(
                {
                    "entry": row.entry,
                    "label": row.label,
                    "l0": x.value,
                    "l0_low": max(x.value - l0_half, x.value / 2),
                    "l0_high": x.value + l0_half,
                    "value": y.value,
                    "low": y.value - half,
                    "high": y.value + half,
                    "seeds": y.n,
                    "shown": f"{y.value:.4f}" + (f" ± {half:.4f}" if y.half is not None else " (one seed)"),
                }
            )
    entries = entries_of(site)
    lows, highs = [value["l0_low"] for value in values], [value["l0_high"] for value in values]
    x_axis = alt.X(
        "l0:Q",
        title="L0 (active latents a token)",
        scale=alt.Scale(type="log", nice=False, domain=[min(lows) * 0.85, max(highs) * 1.18]),
        axis=alt.Axis(values=_log_ticks(min(lows), max(highs)), format="~g"),
    )
    y_axis = alt.Y("value:Q", title=title, scale=alt.Scale(zero=False, nice=True))
    pick = "pick_" + metric.replace("-", "_")
    faded = alt.condition(pick, alt.value(1), alt.value(0.12))
    base = alt.Chart(alt.Data(values=values)).encode(color=entry_colour(site), opacity=faded)
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("shown:N", title=metric),
        alt.Tooltip("l0:Q", title="L0", format=".2f"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    shape = alt.Shape(
        "entry:N", scale=alt.Scale(domain=entries, range=[SHAPES[i % len(SHAPES)] for i in range(len(entries))])
    )
    layers = (
        base.mark_line(strokeWidth=1.6).encode(x=x_axis, y=y_axis),
        base.mark_rule(strokeWidth=1.4).encode(x=x_axis, y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_rule(strokeWidth=1.4).encode(
            x=alt.X("l0_low:Q", title="L0 (active latents a token)"), x2="l0_high:Q", y=y_axis
        ),
        base.mark_point(filled=True, size=64, opacity=1)
        .encode(x=x_axis, y=y_axis, shape=shape, tooltip=tooltip)
        .add_params(entry_pick(pick)),
    )
    return alt.layer(*layers).properties(height=HEIGHT)


def capitalised(text: str) -> str:
    """With a capital first letter, and nothing else changed."""
    return text[:1].upper() + text[1:]


def _log_ticks(low: float, high: float) -> list[float]:
    ticks = [factor * 10.0**power for power in range(-1, 6) for factor in (1, 2, 5)]
    ticks += [2.0**power for power in range(12)] if high / low < 40 else []
    inside = sorted({tick for tick in ticks if low * 0.85 <= tick <= high * 1.18})
    powers = [tick for tick in inside if tick in {2.0**power for power in range(12)}]
    return powers if 2 <= len(powers) <= 8 else inside


def density_rows(site: Site) -> list[tuple[Row, Density]]:
    """One histogram an entry: of the row at its largest L0."""
    found = []
    for entry in reversed(entries_of(site)):
        rows = [(row, row.density) for row in site.rows if row.entry == entry and row.density is not None]
        if rows:
            found.append(max(rows, key=lambda item: (item[0].l0, item[0].label)))
    return found


def density_chart(histograms: Sequence[tuple[Row, Density]]) -> alt.LayerChart:
    """Ridges of equal area, one an entry; the share of latents that never fire as a number at the right."""
    used = [
        edge for _, item in histograms for edge, share in zip(item.edges_log10, item.shares, strict=False) if share > 0
    ]
    low, high = min(used, default=-4.0) - 0.1, 0.05
    tallest = max((share for _, item in histograms for share in item.shares), default=1.0) or 1.0
    areas: list[dict[str, Any]] = []
    notes = []
    for index, (row, item) in enumerate(histograms):
        edges, common = item.edges_log10, {"entry": row.entry, "label": row.label, "y0": index}
        for left, right, share in zip(edges, edges[1:], item.shares, strict=False):
            if right > low:
                at = {"y1": index + 0.9 * share / tallest, "share": share, "x": left}
                areas.append({**common, **at, "range": f"{10**left:.2g} to {10**right:.2g}"})
        areas.append({**common, "y1": index, "share": 0.0, "x": edges[-1], "range": "1"})
        notes.append({"entry": row.entry, "x": high, "y": index + 0.55, "text": f"{item.zero:.1%} silent"})
    labels = json.dumps([row.label for row, _ in histograms])
    axis = alt.Axis(
        values=list(range(len(histograms))),
        labelExpr=f"{labels}[datum.value]",
        title=None,
        domain=False,
        ticks=False,
        labelBaseline="bottom",
        labelLimit=150,
        grid=True,
    )
    y = alt.Y("y0:Q", scale=alt.Scale(domain=[0, len(histograms)], nice=False), axis=axis)
    x = alt.X(
        "x:Q",
        title="log10 density",
        scale=alt.Scale(domain=[low, high], nice=False, clamp=True),
        axis=alt.Axis(values=[tick for tick in range(-8, 1) if tick >= low], format="d", grid=False),
    )
    order = list(dict.fromkeys(row.entry for row, _ in reversed(histograms)))
    colour = alt.Color(
        "entry:N",
        legend=None,
        scale=alt.Scale(domain=order, range=[PALETTE[i % len(PALETTE)] for i in range(len(order))]),
    )
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("range:N", title="density"),
        alt.Tooltip("share:Q", title="latents", format=".2%"),
    ]
    ridges = (
        alt.Chart(alt.Data(values=areas))
        .mark_area(interpolate="step-after", fillOpacity=0.45, line=alt.OverlayMarkDef(strokeWidth=1.2))
        .encode(x=x, y=y, y2="y1:Q", color=colour, tooltip=tooltip)
    )
    text = (
        alt.Chart(alt.Data(values=notes))
        .mark_text(align="right", fontSize=11)
        .encode(x=x, y=alt.Y("y:Q", axis=axis), text="text:N")
    )
    return alt.layer(ridges, text).properties(height=52 * max(2, len(histograms)))


def dots(
    values: list[dict[str, Any]],
    labels: list[str],
    kinds: Mapping[str, tuple[str, str]],
    title: str,
    percent: bool,
    *,
    apart: bool = False,
) -> alt.LayerChart:
    """Rows of dots: a row for each label, a mark (colour and shape) for each kind.

    `apart`: each kind is on a line of its own, where intervals overlap.
    """
    domain = [kind for kind in kinds if any(value["kind"] == kind for value in values)]
    y = alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(domain=False, ticks=False, grid=True, labelLimit=150))
    x = alt.X(
        "value:Q",
        title=title,
        axis=alt.Axis(format="~%" if percent else "~g", tickCount=6, labelOverlap=True),
        scale=alt.Scale(zero=True, nice=True),
    )
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=domain, range=[kinds[kind][0] for kind in domain]),
        legend=alt.Legend(columns=2),
    )
    shape = alt.Shape("kind:N", scale=alt.Scale(domain=domain, range=[kinds[kind][1] for kind in domain]))
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("kind:N", title="what"),
        alt.Tooltip("shown:N", title="value"),
    ]
    line = {"yOffset": alt.YOffset("kind:N", sort=domain)} if apart else {}
    base = alt.Chart(alt.Data(values=values))
    spread = [value for value in values if value["high"] > value["low"]]
    bars = (
        alt.Chart(alt.Data(values=spread))
        .mark_rule(strokeWidth=1.4)
        .encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour, **line)
    )
    points = base.mark_point(size=62, strokeWidth=2).encode(
        x=x, y=y, color=colour, shape=shape, tooltip=tooltip, **line
    )
    return alt.layer(*([bars] if spread else []), points).properties(
        height=_ROW * len(labels) * (2 if apart else 1) + 10
    )


def dot(label: str, kind: str, shown: Shown, percent: bool = False) -> Iterator[dict[str, Any]]:
    """One mark for `dots`, its interval cut to [0, 1]; nothing where there is no value."""
    if shown.value is not None:
        scale = 100.0 if percent else 1.0
        value, half = shown.value / scale, (shown.half or 0.0) / scale
        text = f"{shown.value:.2f} %" if percent else f"{shown.value:.4f}"
        low, high = max(0.0, value - half), min(1.0, value + half)
        yield {"label": label, "kind": kind, "value": value, "low": low, "high": high, "shown": text}


def family_chart(site: Site, columns: Sequence[TableColumn]) -> alt.LayerChart:
    """Metrics of one family by contender, a mark each."""
    percent = all(column.percent for column in columns)
    values = [
        mark
        for row in by_name(site)
        for column in columns
        for mark in dot(row.label, column.name, row.shown(column), column.percent)
    ]
    kinds = {column.name: (PALETTE[i % len(PALETTE)], SHAPES[i % len(SHAPES)]) for i, column in enumerate(columns)}
    return dots(values, [row.label for row in by_name(site)], kinds, columns[0].family, percent)
