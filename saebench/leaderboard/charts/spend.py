"""FVU against spend as Vega-Lite specifications: one for each comparison that the page's switch can show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt

from saebench.leaderboard.charts.fidelity import HEIGHT, entry_colour, entry_pick
from saebench.leaderboard.pages.text import spend_text

_TICKS = {"tokens": "~s", "flops": ".0e", "seconds": "~g"}
_UNITS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
_VIEWS = {"training": "training alone", "all-in": "training, data making and parent"}


def _points(site: Mapping[str, Any], currency: str, view: str) -> Iterator[dict[str, Any]]:
    for row in site["rows"]:
        kinds = ("data", "parent", "search") if view == "all-in" else ("search",)
        parts = [row["cost"].get(f"{kind}_{currency}", 0.0) for kind in kinds]
        if any(part is None for part in parts):
            continue
        for point in row["trajectory"]:
            if point[currency]:
                spend = sum(parts) + point[currency]
                kept = {"entry": row["entry"], "label": row["label"], "fvu": point["fvu"], "l0": point["l0"]}
                yield {**kept, "spend": spend, "shown": spend_text(spend, currency)}


def spend_chart(site: Mapping[str, Any], state: Mapping[str, Any]) -> alt.LayerChart | None:
    """FVU on training batches against what had been spent, a line a row, a rule at the spend of the comparison; None without points."""
    currency, view = state["currency"], state["view"]
    values = list(_points(site, currency, view))
    if not values or state["spend"] is None:
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
    rule = alt.Chart(alt.Data(values=[{"spend": state["spend"]}])).mark_rule(strokeDash=[4, 3]).encode(x=x)
    layers = (
        rule,
        base.mark_line(strokeWidth=1.5),
        base.mark_point(filled=True, size=22).encode(tooltip=tooltip).add_params(entry_pick()),
    )
    return alt.layer(*layers).properties(height=HEIGHT)


def spend_charts(site: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Specification by comparison (`tokens-training`), for those with points."""
    charts = {name: spend_chart(site, state) for name, state in site["equal_spend"]["states"].items()}
    return {name: chart.properties(width="container").to_dict() for name, chart in charts.items() if chart is not None}
