"""Evidence: the records of one or several folders, merged, with what was left out and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts import NOT_COMPARED, RunFolder, digest, read_record
from saebench.artifacts.proof import in_the_way
from saebench.base.text import one_line, without_folders


@dataclass(frozen=True)
class CellRecord:
    """One cell record. `path` is relative to its folder, with forward slashes."""

    path: str
    record: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """The deterministic part."""
        facts: Mapping[str, Any] = self.record["facts"]
        return facts

    @property
    def measured(self) -> Mapping[str, Any]:
        """Times, host and versions."""
        return self.record.get("measured") or {}

    @property
    def cell_id(self) -> str:
        """Digest of what decides the weights."""
        return str(self.record["cell_id"])

    @property
    def score_id(self) -> str:
        """Digest of what decides the score."""
        return str(self.record["score_id"])

    @property
    def ok(self) -> bool:
        """Whether it was trained and scored."""
        return bool(self.facts["status"] == "ok")

    @property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        """Every metric by id, the measured ones too."""
        return {**self.facts["metrics"], **(self.measured.get("metrics") or {})}

    @cached_property
    def variant(self) -> str:
        """Digest of what makes two cells of one name different contenders (config, budget, data, training settings)."""
        facts = self.facts
        keys = ("architecture", "architecture_version", "config", "base", "d_in", "d_sae", "train")
        budget = (facts.get("budget") or {}).get("tokens")
        return digest([[facts.get(key) for key in keys], budget, facts["dataset"].get("recipe")], 16)

    @cached_property
    def place(self) -> tuple[Any, ...]:
        """Where the directions live: model, hookpoint and context, or the activation dataset."""
        model = self.facts["model"]
        if model is None:
            return ("data", self.facts["dataset"].get("name"), self.facts["dataset"].get("recipe"))
        return ("model", model.get("id"), model.get("digest"), model.get("hookpoint"), model.get("context"))

    @cached_property
    def slot(self) -> tuple[Any, ...]:
        """A place in a table that only one score can fill."""
        facts = self.facts
        return (
            facts["suite"],
            self.place,
            facts["entry"],
            facts["point"],
            facts["data_seed"],
            facts["init_seed"],
            self.variant,
        )


@dataclass(frozen=True)
class GroupRecord:
    """One group record. `path` is relative to its folder."""

    path: str
    record: Mapping[str, Any]

    @property
    def facts(self) -> Mapping[str, Any]:
        """The deterministic part."""
        facts: Mapping[str, Any] = self.record["facts"]
        return facts


@dataclass(frozen=True)
class LeftOut:
    """A record that is in a folder and not in the tables. `kind` is superseded, conflict or unreadable."""

    kind: str
    path: str
    cell: str
    score_id: str
    reason: str


@dataclass(frozen=True)
class Evidence:
    """Current records in a fixed order, and what was left out."""

    cells: tuple[CellRecord, ...]
    groups: tuple[GroupRecord, ...]
    left_out: tuple[LeftOut, ...]

    def without(self, path: str, reason: str) -> Evidence:
        """The evidence without the records of this path, which cannot be read further down.

        Raises:
            SuiteError: No cell is left.
        """
        left_out = (unreadable(path, reason), *self.left_out)
        cells = tuple(cell for cell in self.cells if cell.path != path)
        if not cells:
            raise nothing_left(left_out)
        return Evidence(cells, tuple(group for group in self.groups if group.path != path), left_out)


def nothing_left(left_out: Sequence[LeftOut]) -> SuiteError:
    """That no record can be read, with the first of them."""
    first = left_out[0]
    return SuiteError(
        f"{first.path}: {first.reason}. None of {len(left_out)} records can be read. Run the suite again into this folder, or restore it."
    )


_ABSENT = "(absent)"


def compare_values(a: Any, b: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Leaves of two JSON values that differ, as (dotted key, a, b). 1 and 1.0 are equal, True and 1 are not."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for name in sorted({*a, *b}):
            inner = f"{key}.{name}" if key else str(name)
            yield from compare_values(a.get(name, _ABSENT), b.get(name, _ABSENT), inner)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from compare_values(left, right, f"{key}[{index}]")
    elif a != b or isinstance(a, bool) != isinstance(b, bool):
        yield key, a, b


def cell_name(facts: Mapping[str, Any]) -> str:
    """For people: `topk k16 s0`."""
    return f"{facts['entry']} {facts['point']} s{facts['init_seed']}"


def read_cells(folder: Path, left_out: list[LeftOut] | None = None) -> list[CellRecord]:
    """All cell records of a folder, in path order.

    Args:
        folder: Holds records/.
        left_out: Takes the files that cannot be read; without it the first of them raises.

    Raises:
        SuiteError: The folder does not exist or holds no records; a record is damaged or of an unknown schema version.
    """
    if not folder.is_dir():
        raise SuiteError(f"{folder}: no such folder. Name a run folder, or any folder that holds records/.")
    paths = list(RunFolder(folder).record_paths())
    if not paths:
        found = in_the_way(folder / "records") or f"{folder}: no records below records/"
        raise SuiteError(f"{found}. Run `saebench run` into it first, or name a folder that holds records/.")
    return [CellRecord(name, record) for name, record in _read(folder, paths, "cell", left_out)]


def read_groups(folder: Path, left_out: list[LeftOut] | None = None) -> list[GroupRecord]:
    """All group records of a folder, in path order; else as `read_cells`."""
    if (blocked := in_the_way(folder / "groups")) is not None:
        if left_out is None:
            raise Damaged(blocked)
        left_out.append(unreadable("groups", blocked.removeprefix(f"{folder / 'groups'}: ")))
    paths = RunFolder(folder).group_paths()
    return [GroupRecord(name, record) for name, record in _read(folder, paths, "group", left_out)]


def _read(
    folder: Path, paths: Iterable[Path], kind: Literal["cell", "group"], left_out: list[LeftOut] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            yield name, read_record(path, kind)
        except Damaged as damage:
            if left_out is None:
                raise
            left_out.append(unreadable(name, damage.found.removeprefix(f"{path}: ")))


def unreadable(path: str, reason: str) -> LeftOut:
    """A file that no table can use; `path` is relative to its folder."""
    name = path.removesuffix(".json").partition("/")[2]
    return LeftOut("unreadable", path, name, "", without_folders(one_line(reason, 300)))


def read_evidence(folders: Sequence[Path]) -> Evidence:
    """Merges folders: equal facts merge, conflicting facts are set aside, of several scores of a cell the newest is taken. What cannot
    be read is left out and named.

    The result does not depend on the order of the folders nor on where they stand.

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
    return Evidence(tuple(ordered), tuple(_merge_groups(groups)), tuple(left_out))


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
        # A cell that failed on one machine and not on another is not a conflict of scores: the score stands.
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
        for key, _, _ in compare_values(cells[0].facts, other.facts):
            if key not in NOT_COMPARED:
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
