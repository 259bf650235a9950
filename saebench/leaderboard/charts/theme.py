"""The appearance of charts: colours, shapes, and the configuration for light and dark surroundings."""

from __future__ import annotations

from typing import Any

import altair as alt

# Mid-luminance variants of Okabe and Ito's colours: told apart with colour-vision deficiency, readable on white and on
# near-black.
PALETTE = ("#2f7fc1", "#d9682b", "#1f9c78", "#b45fa6", "#c29200", "#4fb0d8", "#8a6d5c", "#7a7f87")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', Arial, sans-serif"


def theme(*, dark: bool) -> dict[str, Any]:
    """Vega-Lite configuration for light or dark surroundings."""
    ink, faint, grid = ("#e6e8eb", "#9aa3ad", "#2c3238") if dark else ("#1c2024", "#5b6570", "#e4e7ea")
    return {
        "background": "transparent" if dark else "#ffffff",
        "font": _FONT,
        "axis": {
            "labelColor": faint,
            "titleColor": ink,
            "gridColor": grid,
            "domainColor": faint,
            "tickColor": faint,
            "labelFontSize": 11,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
        },
        "legend": {
            "labelColor": ink,
            "titleColor": ink,
            "labelFontSize": 12,
            "symbolStrokeWidth": 2,
            "orient": "bottom",
            "title": None,
            "columns": 5,
        },
        "title": {"color": ink, "fontSize": 13, "fontWeight": 600, "anchor": "start"},
        "view": {"stroke": "transparent"},
        "text": {"fill": ink},
        "rule": {"color": faint},
    }


def specification(chart: alt.LayerChart | alt.HConcatChart) -> dict[str, Any]:
    """The chart in Vega-Lite. A test validates it: that takes as long as all the rest of a page."""
    spec: dict[str, Any] = chart.to_dict(validate=False)
    return spec


def with_generator(svg: str, name: str) -> str:
    """The image with a comment that says who made it."""
    head, rest = svg.split(">", 1)
    return f"{head}><!-- Generator: {name} -->{rest}"
