"""The board: all that the pages show, made from records alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saebench.artifacts import STATUSES, digest
from saebench.base.student import CONFIDENCE
from saebench.leaderboard.names import model_title, natural
from saebench.leaderboard.numbers import rounded, spend_text
from saebench.leaderboard.read.columns import TableColumn, columns_of
from saebench.leaderboard.read.merge import MergedRecords, merged_records, mixed_versions
from saebench.leaderboard.read.records import CellRecord, Json, cell_name
from saebench.leaderboard.read.survive import surviving
from saebench.leaderboard.tables.agreement.datasets import across_datasets
from saebench.leaderboard.tables.children import children
from saebench.leaderboard.tables.equal_spend import CURRENCY_OF, equal_spend
from saebench.leaderboard.tables.make_row import evaluation_key, make_row, row_key
from saebench.leaderboard.tables.ranking.curves import LEVEL_TOLERANCE, PRICE_TOLERANCE
from saebench.leaderboard.tables.ranking.moderated import ALPHA, MOST_PRIOR_DF
from saebench.leaderboard.tables.ranks import PRIMARY, rank_levels
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.searches import decide_searches
from saebench.leaderboard.tables.site import Board, NotOk, Site, Suite
from saebench.version import __version__

BOARD_SCHEMA_VERSION = 2
_STATISTICS: dict[str, str | float] = {
    "confidence": CONFIDENCE,
    "interval": "Student t over init seeds",
    "comparison": "on the metric's scale, at one price; variances over seeds moderated by all rows (Smyth 2004), "
    "Welch with Satterthwaite's degrees of freedom, Holm with Shaffer's numbers over the pairs of a level",
    "alpha": ALPHA,
    "most_prior_df": MOST_PRIOR_DF,
    "agreement": "mean over pairs of SAEs; Student t with seeds - 1 degrees of freedom "
    "on a jackknife over init seeds, as pairs share seeds",
    "primary": PRIMARY,
    "equal_spend": "FVU on training batches, linear in log own spend, at the largest spend "
    "that all contenders of a site reached; ranked within one training dataset",
    "price_tolerance": PRICE_TOLERANCE,
    "level_tolerance": LEVEL_TOLERANCE,
}


def board_of(folders: Sequence[Path]) -> Board:
    """The board of the records in `folders`.

    A record with a detail that cannot be read is left out, and `left_out` names it.

    Raises:
        SuiteError: As `merged_records`.
    """
    return surviving(merged_records(folders), make_board)


def make_board(records: MergedRecords) -> Board:
    """The whole board; equal records give an equal one."""
    columns = columns_of(
        [cell.record for cell in records.cells],
        [group.record for group in records.groups if group.vary == {"init_seed"}],
    )
    suites: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in records.cells:
        suites[cell.facts["suite"]].append(cell)
    statuses = [cell.facts["status"] for cell in records.cells]
    board = Board(
        BOARD_SCHEMA_VERSION,
        __version__,
        _STATISTICS,
        columns,
        tuple(_suite(name, suites[name], records, columns) for name in sorted(suites)),
        records.left_out,
        {status: number for status in STATUSES if (number := statuses.count(status))},
    )
    return rounded(board)


def _suite(name: str, cells: Sequence[CellRecord], records: MergedRecords, columns: Sequence[TableColumn]) -> Suite:
    tables: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        if cell.ok:
            tables[(cell.place, evaluation_key(cell))].append(cell)
    # Tables on language models first, then those on data alone; the largest first among equals, then by name.
    order = sorted(tables, key=lambda key: (key[0][0] != "model", -len(tables[key]), repr(key)))
    sites = [_site(tables[key], cells, records, columns) for key in order]
    titles = [site.title for site in sites]
    told_apart = [
        site
        if titles.count(site.title) == 1
        else replace(site, title=f"{site.title}, evaluation {site.evaluation_digest}")
        for site in sites
    ]
    return Suite(
        name,
        tuple(sorted({str(cell.facts.get("suite_digest")) for cell in cells if cell.facts.get("suite_digest")})),
        tuple(told_apart),
        tuple(_all_not_ok(name, cells, records)),
        len(cells),
        max((str(cell.measured.get("finished") or "") for cell in cells), default="") or None,
    )


def _not_ok(name: str, facts: Json, id: str, path: str) -> NotOk:
    error, model = facts.get("error") or {}, facts.get("model") or {}
    dataset = facts.get("dataset") or {}  # of a cell all of it, of a group its name
    place = str(dataset.get("name") if isinstance(dataset, Mapping) else dataset)
    if model:
        place = f"{model_title(model)} {model.get('hookpoint_name') or model['hookpoint']}"
    reason = error.get("message") or "no reason recorded"
    return NotOk(name, place, facts["status"], error.get("type"), reason, id, path)


def _all_not_ok(suite: str, cells: Sequence[CellRecord], records: MergedRecords) -> list[NotOk]:
    """Cells of a suite without a score, then its groups of which some metric failed."""
    return [_not_ok(cell_name(cell.facts), cell.facts, cell.cell_id, cell.path) for cell in cells if not cell.ok] + [
        _not_ok(
            f"group {group.facts['entry']} {group.facts['point']}",
            group.facts,
            str(group.record["group_id"]),
            group.path,
        )
        for group in records.groups
        if group.facts["suite"] == suite and group.facts["status"] == "failed"
    ]


def _site(
    cells: Sequence[CellRecord],
    suite_cells: Sequence[CellRecord],
    records: MergedRecords,
    columns: Sequence[TableColumn],
) -> Site:
    facts = cells[0].facts
    rows, searches = decide_searches(_rows(cells, suite_cells, records, columns), cells, suite_cells)
    contenders = [row for row in rows if not row.control]
    controls = tuple(replace(row, contexts=()) for row in rows if row.control)
    mixed = mixed_versions(cells)
    levels, standings = rank_levels(contenders, columns, mixed)
    # Contexts of one row an entry, at its largest L0: the sparser ones would say the same again.
    last = {row.entry: row.id for row in sorted(contenders, key=lambda row: row.l0)}
    contenders = [
        replace(row, standing=standings[row.id], contexts=row.contexts if last[row.entry] == row.id else ())
        for row in contenders
    ]
    contenders.sort(key=_place_in_table)
    labels = {cell.score_id: row.label for row in contenders for cell in row.cells}
    return Site(
        id="site-" + digest(list(map(str, (facts["suite"], cells[0].place, evaluation_key(cells[0])))), 8),
        title=_title(facts),
        model=facts["model"],
        kind="model" if facts["model"] else str(facts["dataset"].get("kind")),
        d_in=facts.get("d_in"),
        training_datasets=_training_datasets(cells),
        token_policy=facts.get("token_policy"),
        evaluation=facts["evaluation"] or {},
        evaluation_digest=digest(list(map(str, evaluation_key(cells[0]))), 8),
        budgets=tuple(sorted({_budget(cell.facts) for cell in cells if not cell.facts["control"]})),
        seeds=tuple(sorted({cell.facts["init_seed"] for cell in cells})),
        metric_info=dict(
            sorted({id: info for cell in cells for id, info in (cell.facts.get("metric_info") or {}).items()}.items())
        ),
        metric_versions={
            name: version
            for cell in cells
            for name, version in sorted((cell.facts.get("metric_versions") or {}).items())
        },
        mixed_versions={name: tuple(versions) for name, versions in mixed.items()},
        columns=_columns(rows, columns),
        rows=tuple(contenders),
        controls=controls,
        children=children([*contenders, *controls], columns),
        levels=levels,
        across=across_datasets(labels, records.groups),
        searches=searches,
        equal_spend=equal_spend(contenders, controls, [level.l0 for level in levels], _asked(cells)),
        plugins=tuple(sorted({text for row in rows for values in row.versions["plugins"].values() for text in values})),
    )


def _title(facts: Json) -> str:
    model, name = facts["model"], facts["dataset"].get("name") or "a dataset without a name"
    if model:
        return f"{model_title(model)}, {model.get('hookpoint_name') or model['hookpoint']}"
    synthetic = facts["dataset"].get("kind") == "synthetic"
    return f"{name} ({'synthetic, known features' if synthetic else 'activations without a model'})"


def _columns(rows: Sequence[Row], columns: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
    """Columns of the main table in which any row has a value, without those that others replace in every row."""
    valued = {column.id: {row.id for row in rows if row.shown(column).value is not None} for column in columns}
    replaced = {
        old
        for column in columns
        for old in column.replaces
        if valued[column.id] and valued.get(old, set()) <= valued[column.id]
    }
    return tuple(column for column in columns if column.main and valued[column.id] and column.id not in replaced)


def _budget(facts: Json) -> str:
    budget = facts["budget"] or {}
    primary, tokens, share = budget.get("primary"), budget.get("tokens"), budget.get("share")
    if isinstance(share, int | float) and (primary in CURRENCY_OF or budget.get("candidates")):
        # What the suite asked: the tokens it comes to differ from contender to contender.
        given = spend_text(share, CURRENCY_OF.get(str(primary), "tokens"))
    else:
        given = f"{tokens:,} tokens" if isinstance(tokens, int) else "no token allotment recorded"
    n = budget.get("candidates")
    for_whom = f"a search, divided among {n} candidates" if n else "a cell"
    return f"{given} {for_whom}, primary {primary}, counting {budget.get('counts')}"


def _asked(cells: Sequence[CellRecord]) -> Json:
    """The budget of a site's contenders (of its first, should partial runs with several be merged)."""
    return next((cell.facts["budget"] or {} for cell in cells if not cell.facts["control"]), {})


def _training_datasets(cells: Sequence[CellRecord]) -> tuple[Json, ...]:
    keys = ("name", "plugin", "version", "kind", "options", "recipe", "content", "n_tokens")
    found: dict[str, Json] = {}
    for cell in cells:
        dataset = cell.facts["dataset"]
        kept = {key: dataset.get(key) for key in keys}
        found.setdefault(repr((kept["name"], kept["recipe"], kept["content"])), kept)
    return tuple(found[key] for key in sorted(found))


def _rows(
    cells: Sequence[CellRecord],
    suite_cells: Sequence[CellRecord],
    records: MergedRecords,
    columns: Sequence[TableColumn],
) -> list[Row]:
    by_row: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        by_row[row_key(cell)].append(cell)
    labels = {
        key: key[2] + (f" {key[3]}" if key[3] != "default" else "") + (f" d{key[4]}" if key[4] else "")
        for key in by_row
    }
    names = list(labels.values())
    rows = []
    for key, members in by_row.items():
        label = labels[key]
        if names.count(label) > 1:
            # Two configs of one name (a suite was changed between runs): told apart by the digest of what decides the
            # weights.
            label += f" [{members[0].variant[:4]}]"
        planned = [cell for cell in suite_cells if row_key(cell) == key]
        members.sort(key=lambda cell: int(cell.facts["init_seed"]))
        rows.append(make_row(members, planned, records.groups, label, columns))
    return sorted(rows, key=lambda row: (natural(row.entry), row.l0, natural(row.label)))


def _place_in_table(row: Row) -> tuple[Any, ...]:
    """By sparsity level, then fidelity, the unranked last: the order of the table before anybody sorts it."""
    standing, explained = row.standing, row.value(PRIMARY)
    level = standing.level if standing else None
    unranked = standing is None or standing.best is None
    return (level or 1e9, unranked, 1e9 if explained is None else -explained, natural(row.label))
