"""Writes the records of cells as they end, and tells people and observers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.api.errors import PluginError, recorded
from saebench.artifacts import RunFolder, check_record, write_record
from saebench.cells.cell import Cell
from saebench.cells.plan import Plan
from saebench.execute.lock import require
from saebench.execute.records import CellOutcome, cell_record, superseded
from saebench.execute.resume import FolderState, changed_facts
from saebench.measure import machine
from saebench.nn.kernels import backends

if TYPE_CHECKING:
    from saebench.host import Catalog


class RecordWriter:
    """The cell records of one run.

    Args:
        plan, run, catalog, device: Of the run.
        state: What is proven of the folder; told of every record.
        say: Prints one line for people.

    Attributes:
        kept: New status, by `cell_id`, of cells that failed when they were made again after damage: their older record
            stays.
        changed: Ids of the cells that were made again with other facts than before.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        catalog: Catalog,
        state: FolderState,
        device: str,
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._run, self._catalog, self._state = plan, run, catalog, state
        self._device, self._say, self._console = device, say, console.current()
        self._threads, self._backend = machine.n_threads(), backends.current(device)
        self.kept: dict[str, str] = {}
        self.changed: set[str] = set()

    def write(self, cell: Cell, outcome: CellOutcome, started: str | None = None) -> None:
        """Writes the record of a cell; one that a plugin made unfit to be written becomes that of a failure."""
        require(self._run.root)
        path = self._run.record(cell.suite, cell.entry, cell.record_name)
        supersedes, environment = superseded(path, cell), self.environment(started)
        made = partial(cell_record, cell, self._plan, supersedes=supersedes, environment=environment)
        record = made(outcome)
        try:
            check_record(record)
        except PluginError as error:
            if outcome.error is not None:
                raise
            outcome = CellOutcome("failed", recorded(error))
            record = made(outcome)
        if self._replaces(cell, record["facts"]):
            write_record(path, record)
        self._state.scored(cell)
        self._console.cell_ended(f"{cell.label} {outcome.status}")
        if outcome.status != "ok":
            self._say(f"{cell.label}: {outcome.status}: {(outcome.error or {}).get('message', '')}")
        for line in self._catalog.observe("saebench_cell_finished", record=record):
            self._say(line)

    def _replaces(self, cell: Cell, facts: Mapping[str, Any]) -> bool:
        """False where a cell that was ok fails when it is made again: its score is not lost to the failure."""
        older = self._state.facts(cell)
        if older is None or older["status"] != "ok":
            return True
        if facts["status"] != "ok":
            self.kept[cell.cell_id] = facts["status"]
            self._say(f"{cell.label}: what was damaged could not be made again; its record is kept")
            return False
        if names := changed_facts(older, facts):
            self.changed.add(cell.cell_id)
            self._say(f"{cell.label}: made again after damage, with other facts than before ({', '.join(names)})")
        return True

    def _memory(self) -> dict[str, int]:
        """What the plan predicted for the process and its device, and the most that this process held so far.

        The peak holds mapped rows of stores as far as memory was free.
        """
        from saebench.train.meter import process_peak

        estimate = self._plan.estimate
        found = {
            "predicted_bytes": estimate.memory_bytes,
            "predicted_mapped_bytes": estimate.memory_parts.get("stores", 0),
            "peak_bytes": process_peak("cpu"),
        }
        if self._device == "cpu":
            return found
        device = {
            "predicted_device_bytes": estimate.device_memory_bytes,
            "peak_device_bytes": process_peak(self._device),
        }
        return found | device

    def environment(self, started: str | None) -> dict[str, Any]:
        """Machine, versions and times, for a record that is written now."""
        return {
            "host": machine.host(self._device),
            "versions": machine.versions(),
            "threads": self._threads,
            "memory": self._memory(),
            "backend": self._backend,
            "started": started or machine.now(),
            "finished": machine.now(),
        }
