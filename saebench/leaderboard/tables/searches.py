"""Searches (`tune`): of the candidates of one point, the best on validation data is the entry's result there; the others are listed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saebench.leaderboard.pages.names import natural
from saebench.leaderboard.read.merge import CellRecord
from saebench.leaderboard.tables.details import readable
from saebench.leaderboard.tables.statistics import mean, over_seeds
from saebench.leaderboard.tables.trajectories import seconds_spent

UNITS = ("tokens", "flops", "seconds")
Spent = dict[str, float | None]


def search_of(cell: CellRecord) -> str | None:
    """Key of the search that a cell is a candidate of, or None."""
    return None if cell.facts.get("tune") is None else readable(tune, cell, cell.path)


def tune(cell: CellRecord) -> str:
    """Key of the search that this candidate belongs to."""
    return str(cell.facts["tune"]["group"])


def settle(
    rows: Sequence[dict[str, Any]], cells: Sequence[CellRecord], suite_cells: Sequence[CellRecord]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows that stand for their entries, winners of searches among them, and every search of this table.

    A candidate wins by its mean over init seeds. Only those with a value at as many seeds as any can win, so that a seed that failed is
    no advantage; equal means are settled by name.

    Args:
        rows: One a candidate, and all others, by `id`; those of winners are told what their search spent.
        cells: The scored cells behind them.
        suite_cells: All current cells of the suite: candidates without a score are among them.
    """
    place, scored = cells[0].place, {cell.score_id for cell in cells}
    elsewhere = {search_of(cell) for cell in suite_cells if cell.ok and cell.score_id not in scored}
    members: dict[str, list[CellRecord]] = defaultdict(list)
    for cell in suite_cells:
        key = search_of(cell)
        if key is not None and cell.place == place and (cell.score_id in scored or not cell.ok):
            members[key].append(cell)
    row_of = {cell["score_id"]: row for row in rows for cell in row["cells"]}
    lost: set[str] = set()
    searches = []
    for key, found in members.items():
        if key in elsewhere and not any(cell.ok for cell in found):
            continue  # its candidates were scored on other data: that table lists it
        search = readable(search_table, (key, found, row_of), found[0].path)
        searches.append(search)
        lost |= {candidate["row"] for candidate in search["candidates"] if candidate["row"] != search["winner"]}
    searches.sort(key=lambda search: (natural(search["label"]), search["id"]))
    return [row for row in rows if row["id"] not in lost], searches


def search_table(of: tuple[str, Sequence[CellRecord], Mapping[str, dict[str, Any]]]) -> dict[str, Any]:
    """One search from (key, its candidates' cells, row by score), best candidate first; writes into the winner's row."""
    key, cells, row_of = of
    first = cells[0].facts["tune"]
    by_candidate: dict[tuple[str, str], list[CellRecord]] = defaultdict(list)
    for cell in sorted(cells, key=lambda cell: (int(cell.facts["init_seed"]), cell.score_id)):
        by_candidate[(cell.facts["point"], cell.variant)].append(cell)
    candidates = [_candidate(found, row_of) for found in by_candidate.values()]
    most = max(candidate["validation"]["n"] for candidate in candidates)
    sign = 1.0 if first["direction"] == "lower" else -1.0

    def order(candidate: Mapping[str, Any]) -> tuple[Any, ...]:
        value, n = candidate["validation"]["value"], candidate["validation"]["n"]
        return (n == 0, n < most, 0.0 if value is None else sign * value, natural(candidate["label"]))

    candidates.sort(key=order)
    winner = candidates[0] if most else None
    for candidate in candidates:
        n = candidate["validation"]["n"]
        if 0 < n < most:
            candidate["reason"] = "; ".join(
                [f"cannot win with {n} of {most} seeds", *([candidate["reason"]] if candidate["reason"] else [])]
            )
        candidate["won"] = candidate is winner
    recorded, planned = len(candidates), int(first["n_candidates"])
    facts = cells[0].facts
    point = "" if first["point"] == "default" else f" {first['point']}"
    text = (
        f"best of {recorded}{f' (of {planned} planned)' if recorded < planned else ''} by validation {first['metric']}"
    )
    search = {
        "id": f"search-{key[:8]}",
        "label": f"{facts['entry']}{point}" + (f" d{facts['data_seed']}" if facts["data_seed"] else ""),
        "entry": facts["entry"],
        "point": first["point"],
        "metric": first["metric"],
        "direction": first["direction"],
        "text": text,
        "planned": planned,
        "recorded": recorded,
        "on": next((item["on"] for candidate in candidates for item in candidate["read"]), None),
        "samples": next((item["n"] for candidate in candidates for item in candidate["read"]), None),
        "seeds": sorted({int(cell.facts["init_seed"]) for cell in cells}),
        "keys": list(first["values"]),
        "winner": winner["row"] if winner is not None else None,
        "reason": None if winner is not None else "no candidate has a validation value",
        "cost": _cost(cells),
        "candidates": candidates,
    }
    for candidate in candidates:
        del candidate["read"]
    if winner is not None:
        _tell(row_of[_scored_of(by_candidate[winner["label"], winner["variant"]])], search, winner, cells)
    return search


def _scored_of(cells: Sequence[CellRecord]) -> str:
    return next(cell.score_id for cell in cells if cell.ok)


def _candidate(cells: Sequence[CellRecord], row_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    values: dict[int, float] = {}
    why: list[str] = []
    read = []
    for cell in cells:
        seed, validation = int(cell.facts["init_seed"]), cell.facts["tune"]["validation"]
        if not cell.ok:
            error = cell.facts["error"] or {}
            why.append(f"seed {seed} {cell.facts['status']}: {error.get('message') or 'no reason recorded'}")
        elif validation is None or validation["value"] is None:
            why.append(f"seed {seed}: {(validation or {}).get('reason') or 'no validation value recorded'}")
        else:
            values[seed] = float(validation["value"])
            read.append({"on": validation.get("on"), "n": validation["n"]})
    row = next((row_of[cell.score_id] for cell in cells if cell.score_id in row_of), None)
    reason = "; ".join(why) or None
    return {
        "label": cells[0].facts["point"],
        "variant": cells[0].variant,
        "values": cells[0].facts["tune"]["values"],
        "row": row["id"] if row is not None else None,
        "validation": asdict(over_seeds(values, reason=reason)),
        "reason": reason,
        "cost": _cost(cells),
        "read": read,
    }


def _tell(
    row: dict[str, Any], search: Mapping[str, Any], winner: Mapping[str, Any], cells: Sequence[CellRecord]
) -> None:
    """Writes into a winner's row what it won, and what the other candidates of its seeds spent: its share paid for them too."""
    own = {cell["score_id"] for cell in row["cells"]}
    for cell in row["cells"]:
        others = [
            other for other in cells if other.score_id not in own and int(other.facts["init_seed"]) == cell["seed"]
        ]
        cell["search"] = {unit: _sum(_spent(other, unit) for other in others) for unit in UNITS}
    row["tune"] = {
        "text": search["text"],
        "search": search["id"],
        "metric": search["metric"],
        "values": winner["values"],
        "validation": winner["validation"],
    }
    for unit in UNITS:
        spent = _mean([cell["search"][unit] for cell in row["cells"]])
        row["cost"][f"search_{unit}"] = spent
        row["cost"][f"all_{unit}"] = _sum((row["cost"][f"all_{unit}"], spent))
    row["columns"]["cost:train"]["value"] = _sum((row["cost"]["train_tokens"], row["cost"]["search_tokens"]))
    row["columns"]["cost:all"]["value"] = row["cost"]["all_tokens"]


def _spent(cell: CellRecord, unit: str) -> float | None:
    if unit == "seconds":
        return seconds_spent(cell, "train")
    return float(((cell.facts["spent"] or {}).get("train") or {}).get(unit) or 0)


def _cost(cells: Sequence[CellRecord]) -> Spent:
    """Training of all these cells together, mean over their init seeds."""
    seeds = {int(cell.facts["init_seed"]) for cell in cells}
    totals = {unit: _sum(_spent(cell, unit) for cell in cells) for unit in UNITS}
    return {unit: None if total is None else total / len(seeds) for unit, total in totals.items()}


def _sum(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return sum(known) if len(known) == len(found) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if len(known) == len(values) else None
