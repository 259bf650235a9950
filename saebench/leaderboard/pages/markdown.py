"""README.md of a leaderboard: GitHub tables and the chart."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate

from saebench.base.text import shown
from saebench.leaderboard.numbers import EN_DASH, count, fixed, with_interval
from saebench.leaderboard.pages.text import (
    CHILDREN,
    CONTROLS,
    LEAD,
    amount_text,
    candidate_note,
    certificate_text,
    child_verdict,
    curved,
    decimals_of,
    method,
    rank_text,
    search_facts,
    site_facts,
    total_text,
    unranked,
    within_chance,
)
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.agreement.datasets import KINDS
from saebench.leaderboard.tables.agreement.values import Recapture
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.searches import Search
from saebench.leaderboard.tables.site import Board, Site, Suite

_SPECIAL = str.maketrans(
    {
        "@": "&#64;",
        "#": "\\#",
        "~": "\\~",
        "$": "\\$",
        "!": "\\!",
        "|": "\\|",
        "<": "&lt;",
        ">": "&gt;",
        "\n": " ",
        "\r": " ",
        "*": "\\*",
        "_": "\\_",
        "`": "\\`",
        "[": "\\[",
        "]": "\\]",
    }
)

_CORRECTED = {
    "sfr-alive": "SFR alive",
    "matched-cosine": "matched cosine",
    "matched-correlation": "matched correlation",
}
_SEEDS = (
    "Scores over chance, (score - chance) / (1 - chance), chance the larger of what random directions and untrained "
    "samples of the training activations reach, a mean over pairs of seeds with a 95 % jackknife interval "
    "over seeds. The estimated total is the idealised dictionary size by capture-recapture: no bound, and given only "
    "where thresholds of 0.6 to 0.8 agree on it."
)
_ACROSS = (
    "SFR alive between SAEs that differ in the seed, in the training dataset, or in both, with 95 % jackknife "
    "intervals over init seeds. Equal init seeds lift “other dataset”."
)


def escaped(text: object) -> str:
    """Text that Markdown shows as it is, in a table too."""
    plain = shown(" ".join(str(text).split())).replace("&", "&amp;").replace("\\", "\\\\").translate(_SPECIAL)
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")  # addresses become links unasked


def readme_markdown(board: Board, *, has_chart: bool) -> str:
    """The whole page."""
    names = ", ".join(escaped(suite.name) for suite in board.suites)
    blocks = [f"# saebench leaderboard: {names}", LEAD]
    if has_chart:
        blocks.append("![Fidelity against L0, mean and 95 % interval over seeds](chart.svg)")
    blocks.append(
        "Made by `saebench leaderboard` from `records/` and `groups/` alone; do not edit. The command also writes "
        "`index.html`, an interactive page with every number, and `data.json`, all data."
    )
    for suite in board.suites:
        blocks += _suite(suite, several=len(board.suites) > 1)
    if board.left_out:
        rows = [
            [item.kind, escaped(item.cell), escaped(item.score_id[:12]), escaped(item.reason)]
            for item in board.left_out
        ]
        blocks += ["## Records left out", _table(["why", "cell", "score", "reason"], rows, "left")]
    blocks.append("## How to read it")
    blocks.append("\n".join(f"- **{term}.** {text}" for term, text in method(board)))
    blocks.append(f"saebench {board.saebench}.")
    return "\n\n".join(blocks) + "\n"


def _suite(suite: Suite, *, several: bool) -> list[str]:
    blocks = [f"## Suite {escaped(suite.name)}"] if several else []
    for site in suite.sites:
        blocks.append(f"## {escaped(site.title)}")
        blocks.append("\n".join(f"- {term}: {escaped(text)}" for term, text in site_facts(site)))
        if site.mixed_versions:
            mixed = ", ".join(
                f"{escaped(name)} {escaped(' and '.join(versions))}" for name, versions in site.mixed_versions.items()
            )
            blocks.append(
                f"> **Not ranked:** these scores come from different metric versions ({mixed}). "
                "Score the older cells again with `saebench run`."
            )
        if site.rows:
            headers = ["contender", "rank", *(escaped(column.heading_alone) for column in site.columns)]
            blocks.append(_table(headers, [_row(row, site.columns) for row in site.rows]))
            if notes := [*unranked(site.rows), *curved(site.rows)]:
                blocks.append("\n".join(f"- {escaped(line)}" for line in notes))
        if site.controls:
            blocks.append(f"{CONTROLS}.")
            kept = [column for column in site.columns if any(row.shown(column).value for row in site.controls)]
            headers = ["control", *(escaped(column.heading_alone) for column in kept)]
            blocks.append(_table(headers, [_row(row, kept, ranked=False) for row in site.controls]))
        blocks += _children(site)
        blocks += _agreement(site)
        for search in site.searches:
            blocks += [f"### Search: {escaped(search.label)}", escaped(search_facts(search)), _search(search)]
    if suite.not_ok:
        blocks.append("### Without a score")
        rows = [[escaped(item.cell), escaped(item.place), item.status, escaped(item.reason)] for item in suite.not_ok]
        blocks.append(_table(["cell", "where", "status", "reason"], rows, "left"))
    return blocks


def _children(site: Site) -> list[str]:
    """Children beside their parents trained on, by every ranked metric."""
    if not site.children:
        return []
    names = {column.id: column.alone for column in site.columns}
    rows = [
        [
            escaped(child.label),
            escaped(child.control),
            escaped(names.get(metric.id, metric.id)),
            fixed(metric.child, 3),
            fixed(metric.control, 3),
            fixed(metric.difference, 3),
            escaped(child_verdict(metric)),
        ]
        for child in site.children
        for metric in child.metrics
    ]
    headers = ["child", "its parent trained on", "metric", "child's", "parent's", "difference", "the child is"]
    return ["### Children and their parents trained on", CHILDREN, _table(headers, rows)]


def _agreement(site: Site) -> list[str]:
    """Seeds over chance, and datasets against seeds, where the records have them."""
    blocks = []
    found = [(row, row.stability) for row in site.rows if row.stability is not None and row.stability.scores]
    if any(score.corrected for _, stability in found for score in stability.scores.values()):
        rows = []
        for row, stability in found:
            scores = [stability.scores.get(id) for id in _CORRECTED]
            over = [None if score is None else score.corrected for score in scores]
            recapture = stability.recapture
            rows.append(
                [
                    escaped(row.label),
                    *(EN_DASH if score is None else with_interval(score.value, score.half, 3) for score in over),
                    f"{recapture.distinct[-1]:,.0f} in {recapture.k[-1]} seeds" if recapture else EN_DASH,
                    _total(recapture),
                    certificate_text(stability.matching)[0],
                ]
            )
        headers = ["contender", *_CORRECTED.values(), "distinct latents", "estimated total (95 %)", "matching"]
        blocks += ["### Do seeds agree?", _SEEDS, _table(headers, rows)]
        within = [
            said
            for row, stability in found
            for id, name in _CORRECTED.items()
            if id in stability.scores and (said := within_chance(row.label, name, stability.scores[id])) is not None
        ]
        if within:
            blocks.append("\n".join(f"- {escaped(said)}" for said in within))
    across = [item for item in site.across if item.reason is None]
    if across:
        rows = []
        for item in across:
            kinds = [item.kinds[kind].get("sfr-alive") for kind in KINDS]
            rows.append(
                [
                    escaped(f"{item.label}: {', '.join(item.datasets)}"),
                    *(EN_DASH if score is None else with_interval(score.value, score.half, 3) for score in kinds),
                    with_interval(item.difference.value, item.difference.half, 3),
                    item.difference.verdict,
                ]
            )
        headers = ["SFR alive", *KINDS.values(), "seed - dataset", "what it says"]
        blocks += ["### Dataset or seed?", _ACROSS, _table(headers, rows)]
    return blocks


def _total(recapture: Recapture | None) -> str:
    if recapture is None:
        return EN_DASH
    total, interval = total_text(recapture)
    return f"{total} ({interval})" if interval else total


def _search(search: Search) -> str:
    rows = [
        [
            escaped(candidate.label),
            with_interval(candidate.validation.value, candidate.validation.half, 4),
            str(candidate.validation.n),
            count(candidate.cost.tokens),
            escaped(candidate_note(candidate)),
        ]
        for candidate in search.candidates
    ]
    headers = ["candidate", f"validation {escaped(search.metric)}", "seeds", "training tokens a seed", "result"]
    return _table(headers, rows)


def _row(row: Row, columns: Sequence[TableColumn], *, ranked: bool = True) -> list[str]:
    scored, planned = len(row.seeds), len(row.planned_seeds)
    seeds = "" if scored == planned else f" ({scored} of {planned} seeds)"
    best = f" ({escaped(row.tune.text)})" if row.tune else ""
    return [
        escaped(row.label) + best + seeds,
        *([rank_text(row.standing)] if ranked else []),
        *(_cell(row, column) for column in columns),
    ]


def _cell(row: Row, column: TableColumn) -> str:
    shown = row.shown(column)
    if shown.value is not None and (amount := amount_text(column, shown.value)) is not None:
        return amount
    return with_interval(shown.value, shown.half, decimals_of(column, shown.value))


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "right") -> str:
    return tabulate(
        rows,
        headers=headers,
        tablefmt="github",
        disable_numparse=True,
        colalign=["left", *[numbers] * (len(headers) - 1)],
    )
