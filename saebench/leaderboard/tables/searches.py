"""Searches (`tune`): the best candidate of a point on validation data is its result; the others are listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saebench.leaderboard.names import natural
from saebench.leaderboard.read.records import CellRecord, Json
from saebench.leaderboard.tables.details import readable
from saebench.leaderboard.tables.row import Row, Tuned
from saebench.leaderboard.tables.statistics import Estimate, over_seeds
from saebench.leaderboard.tables.trajectories import ALL_IN, UNITS, Spend, mean_or_none, spent, sum_or_none


@dataclass(frozen=True)
class Candidate:
    """One candidate of a search.

    Attributes:
        values: What it tries.
        row: Id of the row of its scores; None where it has none.
        validation: What the search goes by, over init seeds.
        reason: What went wrong, or why it cannot win.
        cost: Of its training, a seed.
        on, samples: Validation dataset and tokens.
    """

    label: str
    variant: str
    values: Json
    row: str | None
    validation: Estimate
    reason: str | None
    cost: Spend
    on: str | None
    samples: int | None
    won: bool = False


@dataclass(frozen=True)
class Search:
    """One search, best candidate first.

    Attributes:
        planned, recorded: Number of candidates.
        on, samples: Validation dataset and tokens.
        keys: What the candidates differ in.
        winner: Id of the winner's row; `reason` says why there is none.
        cost: Of the whole search, a seed.
    """

    id: str
    label: str
    entry: str
    point: str
    metric: str
    direction: str
    text: str
    planned: int
    recorded: int
    on: str | None
    samples: int | None
    seeds: tuple[int, ...]
    keys: tuple[str, ...]
    winner: str | None
    reason: str | None
    cost: Spend
    candidates: tuple[Candidate, ...]


def decide_searches(
    rows: Sequence[Row], cells: Sequence[CellRecord], suite_cells: Sequence[CellRecord]
) -> tuple[list[Row], tuple[Search, ...]]:
    """The rows that count for their entries, with what the search of each winner cost, and every search of this table.

    A candidate wins by its mean over init seeds. Only those with a value at as many seeds as any can win, so that a
    seed that failed is no advantage; of equal means the first name wins.

    Args:
        rows: One a candidate, and all others.
        cells: The scored cells behind them.
        suite_cells: All current cells of the suite: candidates without a score are among them.
    """
    place, scored = cells[0].place, {cell.score_id for cell in cells}
    elsewhere = {cell.search for cell in suite_cells if cell.ok and cell.score_id not in scored}
    members: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in suite_cells:
        if cell.search is not None and cell.place == place and (cell.score_id in scored or not cell.ok):
            members[cell.search].append(cell)
    row_of = {cell.score_id: row.id for row in rows for cell in row.cells}
    kept = {row.id: row for row in rows}
    searches = []
    for key, found in members.items():
        if key in elsewhere and not any(cell.ok for cell in found):
            continue  # its candidates were scored on other data: that table lists it
        search = readable(search_table, (key, found, row_of), found[0].path)
        searches.append(search)
        for candidate in search.candidates:
            if candidate.won and candidate.row is not None:
                kept[candidate.row] = _with_search(kept[candidate.row], search, candidate, found)
            elif candidate.row is not None:
                del kept[candidate.row]
    return list(kept.values()), tuple(sorted(searches, key=lambda search: (natural(search.label), search.id)))


def search_table(of: tuple[str, Sequence[CellRecord], Mapping[str, str]]) -> Search:
    """One search from (key, its candidates' cells, id of the row by score)."""
    key, cells, row_of = of
    first, facts = cells[0].facts["tune"], cells[0].facts
    by_candidate: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: (int(cell.facts["init_seed"]), cell.score_id)):
        by_candidate[(cell.facts["point"], cell.variant)].append(cell)
    found = [_candidate(of_one, row_of) for of_one in by_candidate.values()]
    most = max(candidate.validation.n for candidate in found)
    sign = 1.0 if first["direction"] == "lower" else -1.0

    def order(candidate: Candidate) -> tuple[Any, ...]:
        value, n = candidate.validation.value, candidate.validation.n
        return (n == 0, n < most, 0.0 if value is None else sign * value, natural(candidate.label))

    found.sort(key=order)
    candidates = tuple(_judged(candidate, most, wins=index == 0 and most > 0) for index, candidate in enumerate(found))
    recorded, planned = len(candidates), int(first["n_candidates"])
    point = "" if first["point"] == "default" else f" {first['point']}"
    of_planned = f" (of {planned} planned)" if recorded < planned else ""
    judged = next((candidate for candidate in candidates if candidate.samples is not None), None)
    return Search(
        id=f"search-{key[:8]}",
        label=f"{facts['entry']}{point}" + (f" d{facts['data_seed']}" if facts["data_seed"] else ""),
        entry=facts["entry"],
        point=first["point"],
        metric=first["metric"],
        direction=first["direction"],
        text=f"best of {recorded}{of_planned} by validation {first['metric']}",
        planned=planned,
        recorded=recorded,
        on=None if judged is None else judged.on,
        samples=None if judged is None else judged.samples,
        seeds=tuple(sorted({int(cell.facts["init_seed"]) for cell in cells})),
        keys=tuple(first["values"]),
        winner=candidates[0].row if most else None,
        reason=None if most else "no candidate has a validation value",
        cost=_cost(cells),
        candidates=candidates,
    )


def _judged(candidate: Candidate, most: int, *, wins: bool) -> Candidate:
    n, reason = candidate.validation.n, candidate.reason
    if 0 < n < most:
        reason = "; ".join([f"cannot win with {n} of {most} seeds", *([reason] if reason else [])])
    return replace(candidate, won=wins, reason=reason)


def _candidate(cells: Sequence[CellRecord], row_of: Mapping[str, str]) -> Candidate:
    values: dict[int, float] = {}
    why: list[str] = []
    on, samples = None, None
    for cell in cells:
        seed, validation = int(cell.facts["init_seed"]), cell.facts["tune"]["validation"]
        if not cell.ok:
            error = cell.facts["error"] or {}
            why.append(f"seed {seed} {cell.facts['status']}: {error.get('message') or 'no reason recorded'}")
        elif validation is None or validation["value"] is None:
            why.append(f"seed {seed}: {(validation or {}).get('reason') or 'no validation value recorded'}")
        else:
            if not values:
                on, samples = validation.get("on"), validation["n"]
            values[seed] = float(validation["value"])
    reason = "; ".join(why) or None
    return Candidate(
        label=cells[0].facts["point"],
        variant=cells[0].variant,
        values=cells[0].facts["tune"]["values"],
        row=next((row_of[cell.score_id] for cell in cells if cell.score_id in row_of), None),
        validation=over_seeds(values, reason=reason),
        reason=reason,
        cost=_cost(cells),
        on=on,
        samples=samples,
    )


def _with_search(row: Row, search: Search, winner: Candidate, cells: Sequence[CellRecord]) -> Row:
    """A winner's row with what it won, and what the other candidates of its seeds spent from the same share."""
    own = {cell.score_id for cell in row.cells}
    others: dict[int, list[CellRecord]] = defaultdict(list)
    for other in cells:
        if other.score_id not in own:
            others[int(other.facts["init_seed"])].append(other)
    of_seeds = tuple(
        replace(cell, search=_spend(others[cell.seed]), search_all=_spend(others[cell.seed], with_forwards=True))
        for cell in row.cells
    )
    cost = dict(row.cost)
    for unit in UNITS:
        cost[f"search_{unit}"] = mean_or_none([cell.search.of(unit) if cell.search else None for cell in of_seeds])
        whole = [cell.search_all.of(unit) if cell.search_all else None for cell in of_seeds]
        cost[f"search_all_{unit}"] = mean_or_none(whole)
        cost[f"all_{unit}"] = sum_or_none((cost[f"all_{unit}"], cost[f"search_all_{unit}"]))
    tuned = Tuned(search.text, search.id, search.metric, winner.values, winner.validation)
    return replace(row, cells=of_seeds, cost=cost, tune=tuned)


def _spend(cells: Sequence[CellRecord], seeds: int = 1, *, with_forwards: bool = False) -> Spend:
    """Training of all these cells together, a seed. Their data and their parent are the winner's too."""
    totals = [
        sum_or_none(spent(cell, kind, unit) for cell in cells for kind in ALL_IN[unit] if kind in kinds)
        for kinds in [("train", "forward") if with_forwards else ("train",)]
        for unit in UNITS
    ]
    return Spend(*(None if total is None else total / seeds for total in totals))


def _cost(cells: Sequence[CellRecord]) -> Spend:
    return _spend(cells, len({int(cell.facts["init_seed"]) for cell in cells}))
