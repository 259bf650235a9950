"""index.html of a leaderboard: one file that makes no outside request."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from saebench import console
from saebench.base.text import shown
from saebench.leaderboard.charts.site import agreement_charts, site_charts
from saebench.leaderboard.charts.spend import spend_charts
from saebench.leaderboard.charts.theme import theme
from saebench.leaderboard.names import short
from saebench.leaderboard.numbers import EN_DASH, count, fixed, half_width, scientific, spend_text
from saebench.leaderboard.pages.text import (
    CHILDREN,
    CONTROLS,
    LEAD,
    amount_text,
    candidate_note,
    certificate_text,
    chance_text,
    child_verdict,
    decimals_of,
    method,
    pair_counts,
    rank_reason,
    rank_text,
    search_facts,
    site_facts,
    total_text,
    within_chance,
)
from saebench.leaderboard.tables.agreement.datasets import KINDS, SHOWN
from saebench.leaderboard.tables.agreement.seeds import score_columns
from saebench.leaderboard.tables.equal_spend import CURRENCIES, LEAST_PROGRESS, VIEWS
from saebench.leaderboard.tables.ranks import PRIMARY
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.site import Board, Site
from saebench.leaderboard.tables.statistics import Estimate, MetricCell

_SHADES = 9


def script_json(value: Any) -> Markup:
    """JSON that can be inside a script element whatever text it holds."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def packed(text: str) -> str:
    """Deflated, as base64: a third of a script's size, a tenth of a specification's. The page unpacks it."""
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()


def _asset(name: str) -> Markup:
    return Markup((files("saebench.leaderboard.pages") / "templates" / name).read_text("utf-8"))


@cache
def chart_library() -> Markup:
    """Vega, Vega-Lite and Vega-Embed as one script, from the installed vl-convert."""
    with console.phase("leaderboard", "page"):
        bundle = str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))
    return Markup(bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--"))


def shade(activation: float, peak: float) -> int:
    """Step 0 to 9 of an activation's size between nothing and its context's peak (signed latents shade by size)."""
    if activation == 0 or peak == 0:
        return 0
    return max(1, min(_SHADES, round(_SHADES * abs(activation / peak))))


def number(metric: Estimate, digits: int = 4) -> str:
    """A metric of any size for the details: fixed digits for small numbers, counts for large ones."""
    value = metric.value
    if value is None:
        return EN_DASH
    if value != 0 and (abs(value) >= 10_000 or abs(value) < 10.0**-digits):
        return f"{value:.3e}" if abs(value) < 1 or abs(value) >= 1e9 else count(value)
    decimals = digits if abs(value) < 100 else 1
    return fixed(value, decimals) + (f" ± {half_width(metric.half, decimals)}" if metric.half is not None else "")


def _by_family(row: Row) -> list[tuple[str, list[tuple[str, MetricCell]]]]:
    order = ("reconstruction", "sparsity", "density", "faithfulness", "stability", "truth", "cost")
    families: dict[str, list[tuple[str, MetricCell]]] = {}
    for name, metric in (*row.metrics.items(), *row.group.items()):
        families.setdefault(metric.family, []).append((name, metric))
    known = sorted(families, key=lambda name: (order.index(name) if name in order else len(order), name))
    return [(name, families[name]) for name in known]


def _fit(value: Any) -> Any:
    """Text of a record as a page may hold it; what a macro made of it is fit already."""
    return shown(value) if type(value) is str else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("saebench.leaderboard.pages", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_fit,
        keep_trailing_newline=True,
    )
    environment.filters.update(count=count, scientific=scientific, short=short, number=number, script_json=script_json)
    environment.globals.update(
        rank_text=rank_text,
        pair_counts=pair_counts,
        primary=PRIMARY,
        rank_reason=rank_reason,
        amount_text=amount_text,
        decimals_of=decimals_of,
        fixed=fixed,
        half_width=half_width,
        site_facts=site_facts,
        shade=shade,
        families=_by_family,
        spend_text=spend_text,
        currencies=dict(zip(CURRENCIES, ("equal tokens", "equal FLOPs", "equal seconds"), strict=True)),
        child_verdict=child_verdict,
        children_note=CHILDREN,
        controls_note=CONTROLS,
        least_progress=LEAST_PROGRESS,
        views=dict(zip(VIEWS, ("training", "all-in"), strict=True)),
        lead=LEAD,
        candidate_note=candidate_note,
        search_facts=search_facts,
        kinds=KINDS,
        across_scores=SHOWN,
        certificate_text=certificate_text,
        chance_text=chance_text,
        within_chance=within_chance,
        total_text=total_text,
    )
    return environment


def _metrics(sites: Sequence[Site]) -> list[tuple[str, str]]:
    """What each metric of a row is: said once a page."""
    rows = [row for site in sites for row in (*site.rows, *site.controls)]
    found = {id: metric.description for row in rows for id, metric in (*row.metrics.items(), *row.group.items())}
    return sorted(found.items())


def page_html(board: Board) -> str:
    """The whole page as one string."""
    sites = [site for suite in board.suites for site in suite.sites]
    charts = {site.id: site_charts(site, board.columns) for site in sites}
    agreement = {site.id: agreement_charts(site) for site in sites}
    spend_specs = {site.id: spend_charts(site) for site in sites}
    all_charts = [*charts.values(), *(found for kinds in agreement.values() for found in kinds.values())]
    specs = {chart.id: chart.spec for found in all_charts for chart in found}
    for id, by_state in spend_specs.items():
        specs.update({f"{id}-spend-{name}": spec for name, spec in by_state.items()})
    themes = {"light": {**theme(dark=False), "background": "transparent"}, "dark": theme(dark=True)}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            board=board,
            method=method(board),
            names={column.id: column.alone for column in board.columns},
            scores=score_columns(board.columns),
            charts=charts,
            agreement=agreement,
            metrics=_metrics(sites),
            specs=packed(script_json({"charts": specs, "themes": themes})),
            spend_specs=spend_specs,
            library=packed(chart_library()) if specs else "",
            style=_asset("page.css"),
            script=_asset("page.js"),
        )
    )
