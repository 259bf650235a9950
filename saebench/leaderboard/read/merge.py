"""The records of one or several folders, merged, with what was left out and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.api.errors import SuiteError
from saebench.artifacts import NOT_COMPARED, digest
from saebench.leaderboard.read.records import (
    CellRecord,
    GroupRecord,
    LeftOut,
    cell_name,
    nothing_left,
    read_cells,
    read_groups,
    unreadable,
)


@dataclass(frozen=True)
class MergedRecords:
    """Current records in a fixed order, and what was left out."""

    cells: tuple[CellRecord, ...]
    groups: tuple[GroupRecord, ...]
    left_out: tuple[LeftOut, ...]

    def without(self, path: str, reason: str) -> MergedRecords:
        """These without the records of this path, which turn out to be unreadable when a table is made.

        Raises:
            SuiteError: No cell is left.
        """
        left_out = (unreadable(path, reason), *self.left_out)
        cells = tuple(cell for cell in self.cells if cell.path != path)
        if not cells:
            raise nothing_left(left_out)
        return MergedRecords(cells, tuple(group for group in self.groups if group.path != path), left_out)


ABSENT = "(absent)"
"""Stands for a key that one side does not have."""
Keys = tuple[str | int, ...]
"""Where a value is in a record: names, and positions in lists."""


def unequal(a: Any, b: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any, Any]]:
    """Leaves of two JSON values that differ, as (keys and positions, a, b). 1 and 1.0 are equal, True and 1 are not."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in sorted({*a, *b}):
            yield from unequal(a.get(name, ABSENT), b.get(name, ABSENT), (*path, str(name)))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from unequal(left, right, (*path, index))
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield path, a, b


def dotted(path: Keys) -> str:
    """`metrics.fvu.parts[0].value`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def merged_records(folders: Sequence[Path]) -> MergedRecords:
    """Merges folders: equal facts merge, conflicting facts are left out.

    Of several scores of a cell the newest is taken. What cannot be read is left out and named.

    The result depends neither on the order of the folders nor on where they are.

    Raises:
        SuiteError: No folder was given, one does not exist or holds no records, or none of them can be read.
    """
    if not folders:
        raise SuiteError("leaderboard: no folder given. Name one or more folders that hold records/.")
    damaged: list[LeftOut] = []
    cells = [cell for folder in folders for cell in read_cells(Path(folder), damaged)]
    groups = [group for folder in folders for group in read_groups(Path(folder), damaged)]
    if not cells:
        raise nothing_left(damaged)
    kept, conflicts = _merge_equal(cells)
    current, superseded = _newest(kept)
    ordered = sorted(current, key=lambda cell: (repr(cell.slot), cell.score_id))
    left_out = sorted(
        [*damaged, *conflicts, *superseded], key=lambda item: (item.kind, item.path, item.score_id, item.reason)
    )
    return MergedRecords(tuple(ordered), tuple(_merge_groups(groups)), tuple(left_out))


def _compared(facts: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in facts.items() if key not in NOT_COMPARED})


def _finished(record: Mapping[str, Any]) -> str:
    return str((record.get("measured") or {}).get("finished") or "")


def _merge_equal(cells: Sequence[CellRecord]) -> tuple[list[CellRecord], list[LeftOut]]:
    same: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        same[(cell.facts["suite"], cell.facts["entry"], cell.facts["point"], cell.score_id)].append(cell)
    kept, conflicts = [], []
    for cells_here in same.values():
        ok = [cell for cell in cells_here if cell.ok]
        candidates = sorted(ok or cells_here, key=lambda cell: (_finished(cell.record), digest(cell.record)))
        # A cell that failed on one machine and not on another is not a conflict of scores: the score is used.
        if ok and len({_compared(cell.facts) for cell in ok}) > 1:
            keys = sorted({line.split(":", 1)[0] for line in _first_differences(ok)})
            reason = (
                f"{len(ok)} records of one score_id hold different facts ({', '.join(keys[:6])}); none of them is used"
            )
            conflicts.append(
                LeftOut(
                    "conflict", candidates[-1].path, cell_name(candidates[-1].facts), candidates[-1].score_id, reason
                )
            )
        else:
            kept.append(candidates[-1])
    return kept, conflicts


def _first_differences(cells: Sequence[CellRecord]) -> Iterator[str]:
    for other in cells[1:]:
        for keys, _, _ in unequal(cells[0].facts, other.facts):
            if (key := dotted(keys)) not in NOT_COMPARED:
                yield key


def _newest(cells: Sequence[CellRecord]) -> tuple[list[CellRecord], list[LeftOut]]:
    slots: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in cells:
        slots[cell.slot].append(cell)
    current, superseded = [], []
    for rivals in slots.values():
        replaced = {str(cell.record["supersedes"]) for cell in rivals if cell.record.get("supersedes")}
        # Not replaced by name first, then scored at all, then the time it was finished.
        best = max(
            rivals, key=lambda cell: (cell.score_id not in replaced, cell.ok, _finished(cell.record), cell.score_id)
        )
        current.append(best)
        for cell in rivals:
            if cell is not best:
                by = "named by" if cell.score_id in replaced else "older than"
                superseded.append(
                    LeftOut("superseded", cell.path, cell_name(cell.facts), cell.score_id, f"{by} {best.score_id[:12]}")
                )
    return current, superseded


def _merge_groups(groups: Sequence[GroupRecord]) -> list[GroupRecord]:
    best: dict[tuple[Any, ...], GroupRecord] = {}
    for group in sorted(groups, key=lambda item: (_finished(item.record), digest(item.record))):
        members = sorted(str(member.get("score_id")) for member in group.facts["members"])
        best[
            (
                group.facts["suite"],
                group.facts["entry"],
                group.facts["point"],
                str(group.facts.get("vary")),
                tuple(members),
            )
        ] = group
    return [best[key] for key in sorted(best, key=repr)]


def mixed_versions(cells: Sequence[CellRecord]) -> dict[str, list[str]]:
    """Metric specs of which these scored cells hold more than one version: their numbers cannot share a table."""
    seen: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        if cell.ok:
            for name, version in (cell.facts.get("metric_versions") or {}).items():
                seen[name].add(str(version))
    return {name: sorted(seen[name]) for name in sorted(seen) if len(seen[name]) > 1}
