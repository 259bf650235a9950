"""FVU against spend as Vega-Lite specifications: one for each comparison that the page's switch can show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from saebench.leaderboard.charts.fidelity import HEIGHT, entry_colour, entry_pick
from saebench.leaderboard.charts.theme import specification
from saebench.leaderboard.numbers import spend_text
from saebench.leaderboard.tables.equal_spend import Comparison
from saebench.leaderboard.tables.site import Site
from saebench.leaderboard.tables.trajectories import sum_or_none, with_forwards

_TICKS = {"tokens": "~s", "flops": ".0e", "seconds": "~g"}
_UNITS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
_VIEWS = {"training": "training alone", "all-in": "all-in"}


def _points(site: Site, currency: str, view: str) -> Iterator[dict[str, Any]]:
    kinds = ("data", "parent", "search_all") if view == "all-in" else ("search",)
    for row in site.rows:
        before = sum_or_none(row.cost.get(f"{kind}_{currency}", 0.0) for kind in kinds)
        forward = row.cost.get(f"forward_{currency}") if view == "all-in" and currency != "tokens" else 0.0
        if before is None or forward is None:
            continue
        for own, point in with_forwards(row.trajectory, currency, forward):
            if own > 0:
                kept = {"entry": row.entry, "label": row.label, "fvu": point.fvu, "l0": point.l0}
                yield {**kept, "spend": before + own, "shown": spend_text(before + own, currency)}


def spend_chart(site: Site, state: Comparison) -> alt.LayerChart | None:
    """FVU on training batches against spend, a line a row, a rule at the spend of the comparison; None: no points."""
    currency, view = state.currency, state.view
    values = list(_points(site, currency, view))
    if not values or state.spend is None:
        return None
    title = f"{_UNITS[currency]} ({_VIEWS[view]})"
    x = alt.X(
        "spend:Q",
        title=title,
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format=_TICKS[currency], tickCount=6, grid=False, labelOverlap=True),
    )
    y = alt.Y("fvu:Q", title="FVU", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(format="~g", tickCount=5))
    tooltip = [
        alt.Tooltip("label:N", title="contender"),
        alt.Tooltip("shown:N", title="spent"),
        alt.Tooltip("fvu:Q", title="FVU", format=".4f"),
        alt.Tooltip("l0:Q", title="L0", format=".1f"),
    ]
    base = alt.Chart(alt.Data(values=values)).encode(
        x=x,
        y=y,
        color=entry_colour(site),
        detail="label:N",
        opacity=alt.condition("pick", alt.value(1), alt.value(0.12)),
    )
    rule = alt.Chart(alt.Data(values=[{"spend": state.spend}])).mark_rule(strokeDash=[4, 3]).encode(x=x)
    layers = (
        rule,
        base.mark_line(strokeWidth=1.5),
        base.mark_point(filled=True, size=22).encode(tooltip=tooltip).add_params(entry_pick()),
    )
    return alt.layer(*layers).properties(height=HEIGHT)


def spend_charts(site: Site) -> dict[str, dict[str, Any]]:
    """Specification by comparison (`tokens-training`), for those with points."""
    charts = {name: spend_chart(site, state) for name, state in site.equal_spend.states.items()}
    return {
        name: specification(chart.properties(width="container")) for name, chart in charts.items() if chart is not None
    }
