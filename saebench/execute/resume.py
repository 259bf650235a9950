"""What an earlier run left in the folder, believed only where it is proven, and which cells that leaves to do.

A record is believed if it has its own digest and is that of its cell and score; arrays if they are those that the
record names; a checkpoint if it has its digests and is the cell's. What is damaged is named once and made again. What
is missing and needed by nothing (a person may have freed the space) is left alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from saebench.api.errors import Damaged
from saebench.artifacts import NOT_COMPARED, RunFolder, digest, prove, prove_checkpoint, read_plan, read_record
from saebench.artifacts.atomic import check_way
from saebench.cells.cell import Cell
from saebench.cells.plan import Group

State = Literal["whole", "missing", "damaged"]
SLOW_S = 5.0
"""Checking that takes longer is said."""


class FolderState:
    """What is proven of one run folder; what was proven once is not read again.

    Args:
        run: The folder.
        say: Prints one line for people.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self._said: set[str] = set()
        self._records: dict[str, tuple[str | None, str | None]] = {}
        self._checkpoints: dict[str, State] = {}
        self._arrays: dict[str, State] = {}
        self._seconds = 0.0

    def say(self, line: str) -> None:
        """Says a line, once."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    # ---- one cell --------------------------------------------------------------------------------------------------

    def record(self, cell: Cell) -> dict[str, Any] | None:
        """The record at the cell's own path; None where there is none.

        Raises:
            Damaged: It is not what was written, or is that of another cell or score.
            MachineError: Something else has the name of its folder.
        """
        path = self._run.record(cell.suite, cell.entry, cell.record_name)
        if not os.path.lexists(path):
            check_way(path.parent)  # what is made again could not be written
            return None
        record = read_record(path)
        if (record["cell_id"], record["score_id"]) != (cell.cell_id, cell.score_id):
            raise Damaged(f"{path}: damaged (it is the record of another cell or score)")
        return record

    def facts(self, cell: Cell) -> dict[str, Any] | None:
        """Facts of the record; None where there is none that is believed."""
        try:
            record = self.record(cell)
        except Damaged:
            return None
        facts: dict[str, Any] | None = record["facts"] if record is not None else None
        return facts

    def status(self, cell: Cell) -> str | None:
        """Status of the record; None where there is none that is believed."""
        return self._record(cell)[0]

    def checkpoint(self, cell: Cell) -> State:
        """Whether the weights are stored."""
        if cell.cell_id not in self._checkpoints:
            self._checkpoints[cell.cell_id] = self._tried(
                lambda: self._prove_checkpoint(cell), "The cell is trained again"
            )
        return self._checkpoints[cell.cell_id]

    def arrays(self, cell: Cell) -> State:
        """Whether the per-latent arrays that the record names are stored; whole where it names none."""
        if cell.score_id not in self._arrays:
            self._arrays[cell.score_id] = self._tried(lambda: self._prove_arrays(cell), "The cell is scored again")
        return self._arrays[cell.score_id]

    def trained(self, cell: Cell) -> None:
        """This process wrote the checkpoint."""
        self._checkpoints[cell.cell_id] = "whole"

    def scored(self, cell: Cell) -> None:
        """The record is another one now."""
        self._records.pop(cell.score_id, None)
        self._arrays.pop(cell.score_id, None)

    # ---- all of them -----------------------------------------------------------------------------------------------

    def to_do(
        self,
        cells: Sequence[Cell],
        groups: Iterable[Group],
        *,
        retry_failed: bool,
        is_due: Callable[[Group], bool],
    ) -> set[str]:
        """Ids of the cells that have to be trained or scored, found by going through the folder once.

        These are cells without a believed record, cells of which a part is damaged, those of which a due group or a
        child in training needs a part that is not there, and children that were skipped and whose parent has a score
        now.

        Args:
            cells: Parents first.
            groups: Groups of these cells.
            retry_failed: Also those whose record is not ok.
            is_due: Whether a group has to be scored.
        """
        by_id = {cell.cell_id: cell for cell in cells}
        todo, gone = set(), []
        for cell in cells:
            status = self.status(cell)
            if status == "ok":
                checkpoint, arrays = self.checkpoint(cell), self.arrays(cell)
                if checkpoint != "missing" and arrays == "missing":
                    self.say(f"{self._run.arrays(cell.cell_id)}: missing. The cell is scored again")
                    todo.add(cell.cell_id)
                elif "damaged" in (checkpoint, arrays):
                    todo.add(cell.cell_id)
                elif checkpoint == "missing":
                    gone.append(cell)
            elif status is None or retry_failed or (status == "skipped" and self._has_scored_parent(cell, by_id)):
                todo.add(cell.cell_id)
        needed = {cell_id for group in groups if is_due(group) for cell_id in group.cells}
        todo |= {cell.cell_id for cell in gone if cell.cell_id in needed}
        for cell in reversed(cells):
            if cell.cell_id in todo and cell.parent in by_id and self.checkpoint(cell) != "whole":
                parent = by_id[cell.parent]
                if self.status(parent) == "ok" and self.checkpoint(parent) != "whole":
                    todo.add(parent.cell_id)
        for cell in gone:
            if cell.cell_id in todo:
                self.say(f"{self._run.checkpoint(cell.cell_id)}: missing, and needed. The cell is trained again")
        if kept := [cell for cell in gone if cell.cell_id not in todo]:
            more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
            first = self._run.checkpoint(kept[0].cell_id)
            self.say(
                f"{first}{more}: missing. Nothing needs these weights now, so they are not made again; the records are "
                "kept"
            )
        if self._seconds > SLOW_S:
            self.say(f"checked what an earlier run left in {self._seconds:.0f} s")
        return todo

    def _has_scored_parent(self, cell: Cell, by_id: Mapping[str, Cell]) -> bool:
        return cell.parent is not None and cell.parent in by_id and self.status(by_id[cell.parent]) == "ok"

    # ---- proofs ----------------------------------------------------------------------------------------------------

    def _record(self, cell: Cell) -> tuple[str | None, str | None]:
        """Status and the digest of the arrays."""
        if cell.score_id not in self._records:
            try:
                record = self.record(cell)
                found = (None, None) if record is None else (record["facts"]["status"], record["arrays_sha256"])
            except Damaged as error:
                found = None, None
                again = "scored" if self.checkpoint(cell) == "whole" else "trained"
                self.say(f"{error.found}. The cell is {again} again")
            self._records[cell.score_id] = found
        return self._records[cell.score_id]

    def _prove_checkpoint(self, cell: Cell) -> bool:
        return prove_checkpoint(self._run.checkpoint(cell.cell_id), cell.cell_id)

    def _prove_arrays(self, cell: Cell) -> bool:
        sha256, path = self._record(cell)[1], self._run.arrays(cell.cell_id)
        if sha256 is not None and os.path.lexists(path):
            prove(path, sha256)
        return sha256 is None or os.path.lexists(path)

    def _tried(self, proof: Callable[[], bool], again: str) -> State:
        started = time.perf_counter()
        try:
            return "whole" if proof() else "missing"
        except Damaged as error:
            self.say(f"{error.found}. {again}")
            return "damaged"
        finally:
            self._seconds += time.perf_counter() - started


def changed_facts(older: Mapping[str, Any], newer: Mapping[str, Any]) -> list[str]:
    """Names of the facts in which two records of one score differ; which suite holds the cell is no change."""
    return [
        key for key in sorted({*older, *newer} - {*NOT_COMPARED}) if digest(older.get(key)) != digest(newer.get(key))
    ]


def written_plan(run: RunFolder, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The plan in the folder; None where there is none, or where it is damaged, which is said."""
    if not os.path.lexists(run.plan):
        return None
    try:
        return read_plan(run)
    except Damaged as error:
        say(f"{error.found}. It is written again")
        return None


def written_calibration(run: RunFolder, suite_digest: str) -> dict[str, Any] | None:
    """The calibration of an earlier run of this suite, from its plan, or from a record where that is lost."""
    plan = written_plan(run, lambda line: None)
    if plan is not None:
        return plan["budget"].get("calibration") if plan["suite_digest"] == suite_digest else None
    for path in run.record_paths():
        with suppress(Damaged):
            record = read_record(path)
            if record["facts"].get("suite_digest") == suite_digest:
                calibration: dict[str, Any] | None = record["measured"].get("calibration")
                return calibration
    return None
