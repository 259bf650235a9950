"""The board: all that the pages show, as one JSON object made from evidence alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saebench.artifacts import STATUSES, digest
from saebench.base.student import CONFIDENCE
from saebench.leaderboard.pages.columns import COLUMNS
from saebench.leaderboard.pages.names import model_name, natural
from saebench.leaderboard.pages.numbers import rounded
from saebench.leaderboard.pages.text import spend_text
from saebench.leaderboard.read.frames import mixed_versions
from saebench.leaderboard.read.merge import CellRecord, Evidence, cell_name, read_evidence
from saebench.leaderboard.tables.datasets import across_datasets
from saebench.leaderboard.tables.details import Unreadable
from saebench.leaderboard.tables.equal_spend import CURRENCY_OF, equal_spend
from saebench.leaderboard.tables.ranks import PRIMARY, l0_of, rank_levels
from saebench.leaderboard.tables.rows import evaluation_key, make_row, row_key
from saebench.leaderboard.tables.searches import settle
from saebench.leaderboard.tables.statistics import L0_TOLERANCE, LEVEL_TOLERANCE
from saebench.version import __version__

BOARD_SCHEMA_VERSION = 1


def board_of(folders: Sequence[Path]) -> dict[str, Any]:
    """The board of the records in `folders`. A record with a part that cannot be read is left out, and `left_out` names it.

    Raises:
        SuiteError: As `read_evidence`.
    """
    evidence = read_evidence(folders)
    while True:
        try:
            return make_board(evidence)
        except Unreadable as error:  # every turn takes a record away
            evidence = evidence.without(error.path, error.reason)


def make_board(evidence: Evidence) -> dict[str, Any]:
    """The whole board. Floats are rounded to 10 significant digits; equal evidence gives an equal object."""
    suites: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in evidence.cells:
        suites[cell.facts["suite"]].append(cell)
    board = {
        "schema_version": BOARD_SCHEMA_VERSION,
        "saebench": __version__,
        "statistics": {
            "confidence": CONFIDENCE,
            "interval": "Student t over init seeds",
            "comparison": "paired by init seed where both have the same seeds, else Welch; 95 % a pair, not corrected for the number of pairs",
            "agreement": "mean over pairs of SAEs; Student t with seeds - 1 degrees of freedom on a jackknife over init seeds, as pairs share seeds",
            "primary": PRIMARY,
            "equal_spend": "FVU on training batches, linear in log own spend, at the largest spend that all contenders of a site reached; ranked within one training dataset",
            "l0_tolerance": L0_TOLERANCE,
            "level_tolerance": LEVEL_TOLERANCE,
        },
        "columns": [asdict(column) for column in COLUMNS],
        "suites": [_suite(name, suites[name], evidence) for name in sorted(suites)],
        "left_out": [asdict(item) for item in evidence.left_out],
        "counts": {
            status: number
            for status in STATUSES
            if (number := sum(cell.facts["status"] == status for cell in evidence.cells))
        },
    }
    result: dict[str, Any] = rounded(board)
    return result


def _suite(name: str, cells: Sequence[CellRecord], evidence: Evidence) -> dict[str, Any]:
    tables: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        if cell.ok:
            tables[(cell.place, evaluation_key(cell))].append(cell)
    # Tables on language models first, then those on data alone; the largest first among equals, then by name.
    order = sorted(tables, key=lambda key: (key[0][0] != "model", -len(tables[key]), repr(key)))
    sites = [_site(tables[key], cells, evidence) for key in order]
    titles = [site["title"] for site in sites]
    for site in sites:
        if titles.count(site["title"]) > 1:
            site["title"] += f", evaluation {site['evaluation_digest']}"
    return {
        "name": name,
        "digests": sorted({str(cell.facts.get("suite_digest")) for cell in cells if cell.facts.get("suite_digest")}),
        "sites": sites,
        "not_ok": _all_not_ok(name, cells, evidence),
        "cells": len(cells),
        "finished": max((str(cell.measured.get("finished") or "") for cell in cells), default="") or None,
    }


def _not_ok(name: str, facts: Mapping[str, Any], id: str, path: str) -> dict[str, Any]:
    error, model = facts.get("error") or {}, facts.get("model") or {}
    dataset = facts.get("dataset") or {}  # of a cell all of it, of a group its name
    return {
        "cell": name,
        "place": f"{model_name(model['id'])} {model.get('hookpoint_name') or model['hookpoint']}"
        if model
        else str(dataset.get("name") if isinstance(dataset, Mapping) else dataset),
        "status": facts["status"],
        "error": error.get("type"),
        "reason": error.get("message") or "no reason recorded",
        "cell_id": id,
        "path": path,
    }


def _all_not_ok(suite: str, cells: Sequence[CellRecord], evidence: Evidence) -> list[dict[str, Any]]:
    """Cells of a suite without a score, then its groups of which some metric failed."""
    return [_not_ok(cell_name(cell.facts), cell.facts, cell.cell_id, cell.path) for cell in cells if not cell.ok] + [
        _not_ok(
            f"group {group.facts['entry']} {group.facts['point']}",
            group.facts,
            str(group.record["group_id"]),
            group.path,
        )
        for group in evidence.groups
        if group.facts["suite"] == suite and group.facts["status"] == "failed"
    ]


def _site(cells: Sequence[CellRecord], suite_cells: Sequence[CellRecord], evidence: Evidence) -> dict[str, Any]:
    facts = cells[0].facts
    model, evaluation = facts["model"], facts["evaluation"] or {}
    rows, searches = settle(_rows(cells, suite_cells, evidence), cells, suite_cells)
    contenders = [row for row in rows if not row["control"]]
    controls = [row for row in rows if row["control"]]
    mixed = mixed_versions(cells)
    levels = rank_levels(contenders, mixed)
    for entry in {row["entry"] for row in contenders}:
        # Contexts of one row an entry: the sparser ones would say the same again.
        for row in sorted((row for row in contenders if row["entry"] == entry), key=l0_of)[:-1]:
            row["contexts"] = []
    for row in controls:
        row["contexts"] = []
    contenders.sort(key=_place_in_table)
    title = (
        f"{model_name(model['id'])}, {model.get('hookpoint_name') or model['hookpoint']}"
        if model
        else f"{facts['dataset']['name']} (activations without a model)"
    )
    if not model and facts["dataset"].get("kind") == "synthetic":
        title = f"{facts['dataset']['name']} (synthetic, known features)"
    return {
        "id": "site-" + digest(list(map(str, (facts["suite"], cells[0].place, evaluation_key(cells[0])))), 8),
        "title": title,
        "model": model,
        "kind": "model" if model else str(facts["dataset"].get("kind")),
        "d_in": facts.get("d_in"),
        "training_datasets": _training_datasets(cells),
        "token_policy": facts.get("token_policy"),
        "evaluation": evaluation,
        "evaluation_digest": digest(list(map(str, evaluation_key(cells[0]))), 8),
        "budgets": sorted({_budget(cell.facts) for cell in cells if not cell.facts["control"]}),
        "seeds": sorted({cell.facts["init_seed"] for cell in cells}),
        "metric_info": _metric_info(cells),
        "metric_versions": {
            name: version
            for cell in cells
            for name, version in sorted((cell.facts.get("metric_versions") or {}).items())
        },
        "mixed_versions": mixed,
        "columns": _columns(rows),
        "rows": contenders,
        "controls": controls,
        "levels": levels,
        "across": across_datasets(contenders, evidence.groups),
        "searches": searches,
        "equal_spend": equal_spend(contenders, controls, [level["l0"] for level in levels], _asked(cells)),
        "plugins": sorted({text for row in rows for values in row["versions"]["plugins"].values() for text in values}),
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in which any row has a value; SFR alive stands over chance where every record has it so (both stand with the agreement of seeds)."""

    def valued(id: str) -> set[str]:
        return {row["id"] for row in rows if row["columns"][id]["value"] is not None}

    doubled = {"sfr-alive"} if valued("sfr-alive") <= valued("sfr-alive-corrected") else set()
    return [column.id for column in COLUMNS if valued(column.id) and column.id not in doubled]


def _budget(facts: Mapping[str, Any]) -> str:
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


def _asked(cells: Sequence[CellRecord]) -> Mapping[str, Any]:
    """The budget of a site's contenders (of its first, should partial runs with several be merged)."""
    return next((cell.facts["budget"] or {} for cell in cells if not cell.facts["control"]), {})


def _training_datasets(cells: Sequence[CellRecord]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        dataset = cell.facts["dataset"]
        kept = {
            key: dataset.get(key)
            for key in ("name", "plugin", "version", "kind", "options", "recipe", "content", "n_tokens")
        }
        found.setdefault(repr((dataset.get("name"), dataset.get("recipe"), dataset.get("content"))), kept)
    return [found[key] for key in sorted(found)]


def _metric_info(cells: Sequence[CellRecord]) -> dict[str, Any]:
    info: dict[str, Any] = {}
    for cell in cells:
        info.update(cell.facts.get("metric_info") or {})
    return dict(sorted(info.items()))


def _rows(cells: Sequence[CellRecord], suite_cells: Sequence[CellRecord], evidence: Evidence) -> list[dict[str, Any]]:
    by_row: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        by_row[row_key(cell)].append(cell)
    labels = {
        key: key[2] + (f" {key[3]}" if key[3] != "default" else "") + (f" d{key[4]}" if key[4] else "")
        for key in by_row
    }
    rows = []
    for key, members in by_row.items():
        label = labels[key]
        if list(labels.values()).count(label) > 1:
            # Two configs under one name (a suite was changed between runs): told apart by the digest of what decides the weights.
            label += f" [{members[0].variant[:4]}]"
        planned = [cell for cell in suite_cells if row_key(cell) == key]
        members.sort(key=lambda cell: int(cell.facts["init_seed"]))
        rows.append(make_row(members, planned, evidence.groups, label))
    return sorted(rows, key=lambda row: (natural(row["entry"]), l0_of(row), natural(row["label"])))


def _place_in_table(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """By sparsity level, then rank, then fidelity: the order in which the table reads before anybody sorts it."""
    standing = row["standing"]
    explained = row["columns"][PRIMARY]["value"]
    return (
        standing["level"] or 1e9,
        standing["rank"] or 10**5,
        1e9 if explained is None else -explained,
        natural(row["label"]),
    )
