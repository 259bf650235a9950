"""Charts of agreement: over seeds, thresholds, density, variance and datasets, as Vega-Lite specifications."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import altair as alt

from saebench.leaderboard.charts.fidelity import HEIGHT, by_name, dot, dots, entries_of, entry_colour, entry_pick
from saebench.leaderboard.charts.theme import PALETTE, SHAPES
from saebench.leaderboard.tables.agreement.datasets import KINDS, SHOWN
from saebench.leaderboard.tables.agreement.values import SeedAgreement
from saebench.leaderboard.tables.row import Row, Shown
from saebench.leaderboard.tables.site import Site

FEW = 10
"""A bin of fewer latents is faint."""
THRESHOLD = 0.7
SHARED, FOUND, DISTINCT = "matched pairs above it", "found again in another seed", "distinct latents"
_GREY = PALETTE[7]
_T = TypeVar("_T")
_APART = {"dead": "dead", "not_positive": "≤ 0"}


def stability_chart(site: Site) -> alt.LayerChart:
    """Matched cosine against the larger of its nulls, and SFR among alive latents, a row a contender."""
    kinds = {
        "matched cosine": (PALETTE[0], "circle"),
        "chance": (_GREY, "stroke"),
        "SFR, alive latents": (PALETTE[1], "diamond"),
    }
    columns = {"matched-cosine": "matched cosine", "sfr-alive": "SFR, alive latents"}
    nulls = ("matched-cosine-null", "matched-cosine-data-null")
    values: list[dict[str, Any]] = []
    for row in by_name(site):
        shown = [(kind, row.group[id]) for id, kind in columns.items() if id in row.group]
        levels = [row.group[id] for id in nulls if id in row.group and row.group[id].value is not None]
        shown += [("chance", max(levels, key=lambda metric: metric.value or 0.0))] if levels else []
        for kind, metric in shown:
            values += dot(row.label, kind, Shown(metric.value, metric.half, metric.n, metric.reason))
    return dots(values, [row.label for row in by_name(site)], kinds, "cosine · fraction of pairs", False)


def largest(site: Site, of: Callable[[SeedAgreement], _T | None]) -> Iterator[tuple[Row, _T]]:
    """One row an entry, the one at its largest L0 among those whose agreement has a piece, with that piece."""
    for entry in entries_of(site):
        rows = [
            (row, found)
            for row in site.rows
            if row.entry == entry and row.stability is not None and (found := of(row.stability)) is not None
        ]
        if rows:
            yield max(rows, key=lambda item: (item[0].l0, item[0].label))


def _faded() -> Any:
    return alt.condition("pick", alt.value(1), alt.value(0.12))


def _few(faint: float, full: float) -> Any:
    return alt.condition(f"datum.n < {FEW}", alt.value(faint), alt.value(full))


def curve_chart(site: Site) -> alt.LayerChart | None:
    """Share of matched pairs over each cosine threshold, with the band of its interval and the curve of chance.

    Chance is one grey curve where it is the same for all, else a dashed curve in the colour of each contender.
    """
    values: list[dict[str, Any]] = []
    nulls: list[tuple[str, list[tuple[float, float]]]] = []
    for row, curve in largest(site, lambda found: found.curve):
        halves = curve.half or [None] * len(curve.sfr)
        for threshold, share, half in zip(curve.thresholds, curve.sfr, halves, strict=True):
            values.append(
                {
                    "entry": row.entry,
                    "label": row.label,
                    "threshold": threshold,
                    "value": share,
                    "low": max(0.0, share - (half or 0.0)),
                    "high": min(1.0, share + (half or 0.0)),
                    "shown": f"{share:.4f}" + ("" if half is None else f" ± {half:.4f}"),
                }
            )
        if curve.sfr_null is not None:
            nulls.append((row.entry, list(zip(curve.thresholds, curve.sfr_null, strict=True))))
    if not values:
        return None
    alike = all(points == nulls[0][1] for _, points in nulls)
    chance = [
        {"entry": entry, "threshold": threshold, "value": share, "kind": "chance"}
        for entry, points in (nulls[:1] if alike else nulls)
        for threshold, share in points
    ]
    x = alt.X("threshold:Q", title="cosine threshold", scale=alt.Scale(domain=[0, 1], nice=False))
    y = alt.Y("value:Q", title=SHARED, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~%"))
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("threshold:Q", title="threshold", format=".2f"),
        alt.Tooltip("shown:N", title="share"),
    ]
    base = alt.Chart(alt.Data(values=values)).encode(x=x, y=y, color=entry_colour(site), opacity=_faded())
    layers: list[alt.Chart] = [_rule("threshold", THRESHOLD)]
    if any(value["high"] > value["low"] for value in values):
        band = alt.Chart(alt.Data(values=values)).mark_area(fillOpacity=0.16, interpolate="monotone")
        band = band.encode(x=x, y=alt.Y("low:Q", title=SHARED), y2="high:Q", color=entry_colour(site))
        layers.append(band.encode(opacity=_faded()))
    if chance:
        line = alt.Chart(alt.Data(values=chance)).mark_line(strokeDash=[5, 4], strokeWidth=1.4, interpolate="monotone")
        line = line.encode(x=x, y=y, tooltip=[alt.Tooltip("kind:N", title="random directions")])
        colour = {"color": alt.value(_GREY)} if alike else {"color": entry_colour(site), "opacity": _faded()}
        layers.append(line.encode(**colour))
    layers.append(base.mark_line(strokeWidth=1.8, interpolate="monotone").encode(detail="label:N"))
    layers.append(
        base.mark_point(filled=True, size=40, fillOpacity=0.01, strokeOpacity=0)
        .encode(tooltip=tooltip)
        .add_params(entry_pick())
    )
    return alt.layer(*layers).properties(height=HEIGHT)


def _rule(field: str, at: float) -> alt.Chart:
    return (
        alt.Chart(alt.Data(values=[{field: at}]))
        .mark_rule(strokeDash=[2, 3], strokeWidth=1)
        .encode(x=alt.X(f"{field}:Q"))
    )


def reappearance_chart(site: Site, by: str, title: str) -> alt.LayerChart | None:
    """Mean share of the other seeds in which latents are found again, in bins of `by` (density or variance)."""
    plotted = [
        (row, found)
        for row, found in largest(site, lambda of: None if of.reappearance is None else of.reappearance.by(by))
        if found.bins
    ]
    if not plotted:
        return None
    low = min(item.low for _, found in plotted for item in found.bins)
    high = max(item.high for _, found in plotted for item in found.bins)
    apart = [key for key in _APART if any(key in found.apart for _, found in plotted)]
    places = {key: low - 0.75 - 0.75 * index for index, key in enumerate(reversed(apart))}
    values = []
    for index, (row, found) in enumerate(plotted):
        shift = 0.05 * (index - (len(plotted) - 1) / 2)
        common = {"entry": row.entry, "label": row.label}
        for item in found.bins:
            error = item.half or 0.0
            values.append(
                {
                    **common,
                    "x": (item.low + item.high) / 2 + shift,
                    "value": item.mean,
                    "low": max(0.0, item.mean - error),
                    "high": min(1.0, item.mean + error),
                    "n": item.n,
                    "range": f"{10**item.low:.2g} to {10**item.high:.2g}",
                    "line": item.n >= FEW,
                }
            )
        for key, others in found.apart.items():
            if others.mean is not None:
                at = {"x": places[key] + shift, "value": others.mean, "low": others.mean, "high": others.mean}
                values.append({**common, **at, "n": others.n, "range": _APART[key], "line": False})
    ticks = [*places.values(), *(float(tick) for tick in range(-12, 1) if low <= tick <= high)]
    names = "".join(f"datum.value == {place} ? {json.dumps(_APART[key])} : " for key, place in places.items())
    x = alt.X(
        "x:Q",
        title=f"log10 {title}",
        scale=alt.Scale(domain=[min([low, *places.values()]) - 0.3, high + 0.15], nice=False),
        axis=alt.Axis(values=ticks, labelExpr=f"{names}format(datum.value, 'd')", grid=False),
    )  # fmt: skip
    y = alt.Y("value:Q", title=FOUND, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~%"))
    base = alt.Chart(alt.Data(values=values)).encode(x=x, color=entry_colour(site), opacity=_faded())
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("range:N", title=title),
        alt.Tooltip("value:Q", title="found again", format=".1%"),
        alt.Tooltip("n:Q", title="latents", format=","),
    ]
    layers = (
        base.transform_filter("datum.line").mark_line(strokeWidth=1.2, strokeOpacity=0.6).encode(y=y, detail="label:N"),
        base.transform_filter("datum.high > datum.low")
        .mark_rule(strokeWidth=1.4)
        .encode(y=alt.Y("low:Q", title=FOUND), y2="high:Q", strokeOpacity=_few(0.3, 1)),
        base.mark_point(filled=True, strokeWidth=0)
        .encode(
            y=y,
            size=alt.Size("n:Q", scale=alt.Scale(type="sqrt", range=[14, 190]), legend=None),
            fillOpacity=_few(0.35, 0.9),
            tooltip=tooltip,
        )
        .add_params(entry_pick()),
    )
    return alt.layer(*layers).properties(height=HEIGHT)


def distinct_chart(site: Site) -> alt.LayerChart | None:
    """Distinct latents that 1 to S seeds together find, and the extrapolated total with its interval at the right."""
    plotted = list(largest(site, lambda found: found.recapture))
    if not plotted:
        return None
    last = max(found.k[-1] for _, found in plotted)
    total = last + 1.25
    points: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for index, (row, found) in enumerate(plotted):
        common = {"entry": row.entry, "label": row.label}
        for k, distinct in zip(found.k, found.distinct, strict=True):
            points.append(
                {**common, "x": k, "value": distinct, "shown": f"{distinct:,.0f} in {k} seed{'s' * (k != 1)}"}
            )
        if found.estimate is not None:
            low, high = (found.estimate if end is None else end for end in (found.low, found.high))
            text = f"{found.estimate:,.0f} in all (95 % {low:,.0f} to {high:,.0f})"
            at = total + 0.5 * (index - (len(plotted) - 1) / 2) / max(1, len(plotted) - 1)
            ends.append({**common, "x": at, "value": found.estimate, "low": low, "high": high, "shown": text})
            for x_at, value in ((found.k[-1], found.distinct[-1]), (at, found.estimate)):
                points.append({**common, "x": x_at, "value": value, "way": "beyond", "shown": text})
    ticks = [*range(1, last + 1), total]
    x = alt.X(
        "x:Q",
        title="seeds taken together",
        scale=alt.Scale(domain=[0.8, total + 0.4], nice=False),
        axis=alt.Axis(values=ticks, labelExpr=f"datum.value > {last} ? 'total (est.)' : datum.value", grid=False),
    )
    y = alt.Y("value:Q", title=DISTINCT, scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(format="~s"))
    tooltip = [alt.Tooltip("label:N", title="contender"), alt.Tooltip("shown:N", title="distinct latents")]
    base = alt.Chart(alt.Data(values=points)).encode(x=x, y=y, color=entry_colour(site), opacity=_faded())
    layers = [
        base.transform_filter("!datum.way").mark_line(strokeWidth=1.8),
        base.transform_filter("datum.way").mark_line(strokeWidth=1.1, strokeDash=[3, 3]),
        base.transform_filter("!datum.way")
        .mark_point(filled=True, size=44)
        .encode(tooltip=tooltip)
        .add_params(entry_pick()),
    ]
    if ends:
        end = alt.Chart(alt.Data(values=ends)).encode(x=x, color=entry_colour(site), opacity=_faded())
        layers.append(end.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q", title=DISTINCT), y2="high:Q"))
        layers.append(end.mark_point(filled=True, size=60, shape="diamond").encode(y=y, tooltip=tooltip))
    return alt.layer(*layers).properties(height=HEIGHT)


def across_chart(site: Site) -> alt.LayerChart | None:
    """SFR alive of pairs that differ in the seed, in the dataset and in both, a row an architecture's point."""
    score = next(iter(SHOWN))
    marks = dict(zip(KINDS.values(), zip(PALETTE[:3], SHAPES[:3], strict=True), strict=True))
    values = []
    plotted = [item for item in site.across if item.reason is None]
    for item in plotted:
        for kind, name in KINDS.items():
            if (found := item.kinds[kind].get(score)) is not None:
                for mark in dot(item.label, name, Shown(found.value, found.half, found.n or 0, None)):
                    half = "" if found.half is None else f" ± {found.half:.4f}"
                    values.append({**mark, "shown": mark["shown"] + half})
    if not values:
        return None
    return dots(values, [item.label for item in plotted], marks, "SFR, alive latents", False, apart=True)
