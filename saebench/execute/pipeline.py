"""From a plan to records: what is left to do, pass by pass; then groups.

A cell is trained when its checkpoint is stored, and scored when its record and its arrays are stored, each proven
against its digest: whatever was finished before a kill is kept, what is damaged is made again, cells in the middle of
their training continue from their snapshots, and the facts end equal to those of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from saebench import console
from saebench.api.errors import SaebenchError, recorded
from saebench.artifacts import RunFolder
from saebench.base.heap import give_back
from saebench.cells.cell import Cell
from saebench.cells.plan import CELL_PHASES, Group, Plan
from saebench.execute.groups import GroupRunner
from saebench.execute.record_writer import RecordWriter
from saebench.execute.records import CellOutcome
from saebench.execute.resume import FolderState
from saebench.execute.training_pass import PassRunner
from saebench.measure import machine
from saebench.plan.grouping.passes import form_passes

if TYPE_CHECKING:
    from saebench.host import Catalog


class Pipeline:
    """One run of one plan in one folder.

    Args:
        plan: The plan.
        run: Its folder, locked by the caller.
        catalog: Installed plugins.
        device: Where to train and score.
        say: Prints one line for people.
        predicted: Seconds by kind of phase, for the time left.
        debug: Raise unknown errors of scoring, and say the tracebacks of training.
        snapshot_every_s: Seconds between two snapshots of the cells in training.

    Attributes:
        failed_groups: Names of the groups of which a metric failed; the next run tries them again.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        catalog: Catalog,
        *,
        device: str,
        say: Callable[[str], None],
        predicted: Mapping[str, float],
        debug: bool = False,
        snapshot_every_s: float = 120.0,
    ) -> None:
        from saebench.activations.sources.run_data import RunData

        self._plan, self._say, self._predicted, self._console = plan, say, predicted, console.current()
        self._sources = RunData(plan.datasets, run=run, catalog=catalog, device=device, say=say)
        self._state = FolderState(run, say)
        self._records = RecordWriter(plan, run, catalog, self._state, device, say)
        self._passes = PassRunner(
            plan,
            run,
            catalog,
            self._sources,
            self._state,
            self._records,
            device=device,
            say=say,
            debug=debug,
            snapshot_every_s=snapshot_every_s,
        )
        self._groups = GroupRunner(run, catalog, self._sources, device, self._state, plan.cohorts)
        self.failed_groups: list[str] = []

    def execute(self, cells: Sequence[Cell], *, retry_failed: bool) -> dict[str, str]:
        """Trains and scores what is missing among `cells`.

        Returns:
            The status of every one of these cells.
        """
        tried: set[str] = set()
        left = self._to_do(cells, retry_failed)
        self._announce(cells, left)
        while left:
            self._train_and_score([cell for cell in cells if cell.cell_id in left])
            tried |= left
            # this finds nothing more, unless a cell ended otherwise than before and a group or a child now needs it
            left = self._to_do(cells, retry_failed) - tried
        self._record_without_data(cells)
        kept = self._records.kept
        statuses = {cell.cell_id: kept.get(cell.cell_id) or self._state.status(cell) or "failed" for cell in cells}
        self._console.leave(CELL_PHASES)
        self._sources.release_held_out()  # groups read activations alone
        give_back()
        for group in self._groups_of(cells):
            with self._console.phase("groups", f"{group.entry} {group.point}", amount=1):
                if self._is_due(group, statuses):
                    self._score_group(group, statuses)
        return statuses

    def _to_do(self, cells: Sequence[Cell], retry_failed: bool) -> set[str]:
        with self._console.phase("planning", "what is left to do"):
            # of a cell that is yet to be made the best is expected: a group that this holds back is due the next time
            expected = {cell.cell_id: self._state.status(cell) or "ok" for cell in cells}
            is_due = partial(self._is_due, statuses=expected)
            return self._state.to_do(cells, self._groups_of(cells), retry_failed=retry_failed, is_due=is_due)

    def _announce(self, cells: Sequence[Cell], left: Collection[str]) -> None:
        tokens = sum(cell.tokens for cell in cells if cell.cell_id in left)
        amounts = {"training": tokens, "scoring": len(left), "groups": len(self._groups_of(cells)), "leaderboard": 1}
        self._console.expect(self._plan.suite, self._predicted, amounts, (len(cells) - len(left), len(cells)))
        self._console.leave(("planning",))  # it is done, and its seconds are none of those that are counted from here

    def _train_and_score(self, cells: Sequence[Cell]) -> None:
        by_id = {cell.cell_id: cell for cell in cells}
        todo: dict[str, list[Cell]] = {}
        for cohort in self._plan.cohorts:
            if members := [by_id[cell_id] for cell_id in cohort.cells if cell_id in by_id]:
                todo[cohort.key] = members
        coming = [cohort for cohort in self._plan.cohorts if cohort.key in todo]
        self._sources.check_disk(coming)
        for together in form_passes(coming):
            self._groups.use_model(together[0].model)
            self._passes.run(together, todo)
            give_back()

    def _record_without_data(self, cells: Sequence[Cell]) -> None:
        """Records the cells whose data could not be had. Where that is all of them, refuses the suite.

        Raises:
            SuiteError, PluginError: Of the first of them.
        """
        nothing_done = all(self._state.status(cell) in (None, "skipped") for cell in cells)
        for cell, error in self._passes.without_data:
            if nothing_done and isinstance(error, SaebenchError):
                raise error
            self._records.write(cell, CellOutcome("failed", recorded(error)))

    # ---- groups ------------------------------------------------------------------------------------------------------

    def _groups_of(self, cells: Sequence[Cell]) -> list[Group]:
        """Groups of which all members are among these cells."""
        ids = {cell.cell_id for cell in cells}
        return [group for group in self._plan.groups if ids.issuperset(group.cells)]

    def _members(self, group: Group) -> list[Cell]:
        return [self._plan.cell(cell_id) for cell_id in group.cells]

    def _is_due(self, group: Group, statuses: Mapping[str, str]) -> bool:
        if not self._records.kept.keys().isdisjoint(group.cells):
            return False  # what it would be scored on could not be made again: its score is kept
        changed = not self._records.changed.isdisjoint(group.cells)
        return changed or self._groups.is_due(group, self._members(group), statuses)

    def _score_group(self, group: Group, statuses: Mapping[str, str]) -> None:
        environment = partial(self._records.environment, machine.now())
        failed = self._groups.score(group, self._members(group), statuses, environment)
        if failed is not None:
            self.failed_groups.append(group.name)
            self._say(f"group {group.entry} {group.point}: failed: {failed['message']}")
