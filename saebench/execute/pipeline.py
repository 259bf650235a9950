"""From a plan to records: pass by pass, cells trained side by side and saved, each reloaded from disk, scored, recorded; then groups.

A cell is trained when its checkpoint stands, and scored when its record and its arrays stand, each proven against its digest: whatever
was finished before a kill is kept, what is damaged is made again, cells in the middle of their training go on from their snapshots,
and the facts end equal to those of an uninterrupted run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from saebench import console
from saebench.api.errors import (
    CellError,
    Damaged,
    Diverged,
    MachineError,
    PluginError,
    SaebenchError,
    contained,
    recorded,
)
from saebench.artifacts import RunFolder, check_record, refuse, save_arrays, write_record
from saebench.cells.cell import Cell, DatasetUse
from saebench.cells.plan import CELL_PHASES, Cohort, Group, Plan
from saebench.execute.groups import GroupRunner
from saebench.execute.lock import require
from saebench.execute.pass_progress import PassWatch
from saebench.execute.records import CellOutcome, Trained, cell_record, superseded
from saebench.execute.resume import Standing, changed_facts
from saebench.measure import machine
from saebench.plan.grouping.memory_batches import cap_memory, memory_limit, waves
from saebench.plan.grouping.passes import form_passes

if TYPE_CHECKING:
    from saebench.activations.sources.held_out.streams import HeldOut
    from saebench.activations.sources.run_data import RunData
    from saebench.activations.sources.training import TrainingSource
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.host import Catalog

GB = 1_000_000_000

T = TypeVar("T")


class Pipeline:
    """One run of one plan in one folder.

    Args:
        plan: The frozen plan.
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

        self.plan, self.run, self.catalog, self.device = plan, run, catalog, device
        self.say, self.debug, self.snapshot_every_s = say, debug, snapshot_every_s
        self._predicted, self._console = predicted, console.current()
        self.sources: RunData = RunData(plan.datasets, run=run, catalog=catalog, device=device, say=say)
        self.standing = Standing(run, say)
        self.groups = GroupRunner(run, catalog, self.sources, device, self.standing)
        self.kept: dict[str, str] = {}
        self.changed: set[str] = set()
        self.failed_groups: list[str] = []
        self._without_data: list[tuple[Cell, Exception]] = []
        self.threads = machine.n_threads()
        self.memory_gb: float | None = plan.budget.get("memory_gb")
        if self.memory_gb and device.startswith("cuda"):
            cap_memory(device, int(self.memory_gb * GB))

    # ---- the run ---------------------------------------------------------------------------------------------------

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
            # a second look finds nothing to do, unless a cell ended otherwise than before and a group or a child now needs more
            left = self._to_do(cells, retry_failed) - tried
        self._tell_without_data(cells)
        statuses = self._statuses(cells)
        self._console.leave(CELL_PHASES)
        for group in self._groups(cells):
            members = [self.plan.cell(cell_id) for cell_id in group.cells]
            with self._console.phase("groups", f"{group.entry} {group.point}", amount=1):
                if self._is_due(group, statuses):
                    started = machine.now()
                    failed = self.groups.score(group, members, statuses, lambda: self._environment(started))  # noqa: B023
                    if failed is not None:
                        self.failed_groups.append(group.name)
                        self.say(f"group {group.entry} {group.point}: failed: {failed['message']}")
        return statuses

    def _tell_without_data(self, cells: Sequence[Cell]) -> None:
        """Records of the cells whose data could not be had. Where that is all of them the suite itself is refused, and nothing recorded.

        Raises:
            SuiteError, PluginError: Of the first of them.
        """
        nothing_done = all(self.standing.status(cell) in (None, "skipped") for cell in cells)
        for cell, error in self._without_data:
            if nothing_done and isinstance(error, SaebenchError):
                raise error
            self._write(cell, CellOutcome("failed", recorded(error)))

    def _announce(self, cells: Sequence[Cell], left: Collection[str]) -> None:
        tokens = sum(cell.tokens for cell in cells if cell.cell_id in left)
        amounts = {"training": tokens, "scoring": len(left), "groups": len(self._groups(cells)), "leaderboard": 1}
        self._console.expect(self.plan.suite, self._predicted, amounts, (len(cells) - len(left), len(cells)))
        self._console.leave(("planning",))  # it is done, and its seconds are none of those that are counted from here

    def _train_and_score(self, cells: Sequence[Cell]) -> None:
        by_id = {cell.cell_id: cell for cell in cells}
        todo: dict[str, list[Cell]] = {}
        for cohort in self.plan.cohorts:
            if members := [by_id[cell_id] for cell_id in cohort.cells if cell_id in by_id]:
                todo[cohort.key] = members
        coming = [cohort for cohort in self.plan.cohorts if cohort.key in todo]
        self.sources.check_disk(coming)
        for together in form_passes(coming):
            use = together[0].model
            if use and self.groups.model not in (None, use.digest):
                self.sources.release()  # one language model in memory at a time
            self.groups.model = use.digest if use else self.groups.model
            self._pass(together, todo)

    def _statuses(self, cells: Sequence[Cell]) -> dict[str, str]:
        return {cell.cell_id: self.kept.get(cell.cell_id) or self.standing.status(cell) or "failed" for cell in cells}

    def _groups(self, cells: Sequence[Cell]) -> list[Group]:
        """Groups of which all members are among these cells."""
        wanted = {cell.cell_id for cell in cells}
        return [group for group in self.plan.groups if wanted.issuperset(group.cells)]

    def _is_due(self, group: Group, statuses: Mapping[str, str]) -> bool:
        if not self.kept.keys().isdisjoint(group.cells):
            return False  # what it would be scored on could not be made again: the score that is there stays
        members = [self.plan.cell(cell_id) for cell_id in group.cells]
        return not self.changed.isdisjoint(group.cells) or self.groups.is_due(group, members, statuses)

    def _to_do(self, cells: Sequence[Cell], retry_failed: bool) -> set[str]:
        with self._console.phase("planning", "what is left to do"):
            # of a cell that is yet to be made the best is expected: a group that this holds back is due at the next look
            expected = {cell.cell_id: self.standing.status(cell) or "ok" for cell in cells}
            return self.standing.to_do(
                cells,
                self._groups(cells),
                retry_failed=retry_failed,
                is_due=lambda group: self._is_due(group, expected),
            )

    def _pass(self, cohorts: Sequence[Cohort], todo: Mapping[str, Sequence[Cell]]) -> None:
        """Cells that read the same tokens: trained in as few passes over them as parents and memory allow, then scored."""
        cells = [cell for cohort in cohorts for cell in todo[cohort.key]]
        trained = {cell.cell_id for cell in cells if self.standing.checkpoint(cell) == "whole"}
        reads = [any(cell.cell_id not in trained for cell in todo[cohort.key]) for cohort in cohorts]
        started = time.perf_counter()
        try:
            with contained():
                opened = self.sources.training_pass(cohorts, reads)
            found = dict(zip((cohort.key for cohort in cohorts), opened, strict=True))
        except (MachineError, Damaged):
            raise
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            if self.debug and not isinstance(error, SaebenchError):
                raise
            self._without_data += [(cell, error) for cell in cells]  # the others go on
            return
        data_s = time.perf_counter() - started
        sources = {cell.cell_id: found[cohort.key] for cohort in cohorts for cell in todo[cohort.key]}
        for cell in cells:
            if cell.cell_id in trained:
                self._drop_snapshot(cell)
                self._console.spared("training", cell.tokens)
                self._score(cell, sources[cell.cell_id], data_s, None)
        for wave in waves(cells, self.catalog, memory_limit(self.device, self.memory_gb), trained):
            self._wave(wave, sources, data_s)

    def _wave(self, cells: Sequence[Cell], sources: Mapping[str, TrainingSource], data_s: float) -> None:
        """Trains cells side by side, each saved as soon as it has ended; then scores them."""
        from saebench.train import save_outcome, train_pass

        ready: list[Cell] = []
        for cell in cells:
            if (parent := self._missing_parent(cell)) is not None:
                self._write(cell, CellOutcome("skipped", {"type": "CellError", "message": parent}))
                continue
            # what it will be scored on is opened first: data that cannot be used ends a cell before its training, not after
            outcome = self._caught(lambda: self._held_out(cell, sources[cell.cell_id]))  # noqa: B023
            if isinstance(outcome, CellOutcome):
                self._write(cell, outcome)
            else:
                ready.append(cell)
        if not ready:
            return
        parents = {cell.parent: self.run.checkpoint(cell.parent) for cell in ready if cell.parent is not None}
        saved: list[Cell] = []
        with PassWatch(ready, self.catalog, self.say) as watch:
            for cell, trained in train_pass(
                [(cell, sources[cell.cell_id]) for cell in ready],
                self.catalog,
                parents=parents,
                device=self.device,
                memory_share_bytes=int(self.memory_gb * GB) if self.memory_gb else None,
                progress=watch,
                snapshots=self.run.snapshots,
                snapshot_every_s=self.snapshot_every_s,
            ):
                if trained.ok:
                    save_outcome(trained, cell, self.run.checkpoint(cell.cell_id))
                    self.standing.trained(cell)
                    trained.module = None  # scored from the file, so that a resumed run reads the same
                    saved.append(cell)
                    continue
                if self.debug and trained.traceback:
                    self.say(trained.traceback)
                left = Trained(trained, sources[cell.cell_id], data_s)
                outcome = CellOutcome(trained.status, trained.error, left)
                outcome.observer_errors += watch.errors.pop(cell.cell_id, [])
                self._write(cell, outcome, watch.began[cell.cell_id])
        for cell in saved:
            self._score(cell, sources[cell.cell_id], data_s, watch)

    def _score(self, cell: Cell, source: TrainingSource, data_s: float, watch: PassWatch | None) -> None:
        """Scores a cell whose checkpoint stands, and writes its record."""
        if watch is None:  # trained by an earlier run
            started, errors = machine.now(), self.catalog.observe("saebench_cell_started", cell=asdict(cell))
        else:
            started, errors = watch.began[cell.cell_id], watch.errors[cell.cell_id]
        with self._console.phase("scoring", cell.label, amount=1):
            outcome = self._caught(lambda: self._scored(cell, source, data_s))
        outcome.observer_errors += errors
        self._write(cell, outcome, started)

    def _caught(self, make: Callable[[], T]) -> T | CellOutcome:
        """What `make` gives; the outcome of the cell that it is for, where it raises. What the machine refuses is raised."""
        try:
            with contained():
                return make()
        except MachineError:
            raise
        except SaebenchError as error:
            return CellOutcome(error.status if isinstance(error, CellError) else "failed", recorded(error))
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            if self.debug:
                raise
            return CellOutcome("failed", recorded(error))

    def _scored(self, cell: Cell, source: TrainingSource, data_s: float) -> CellOutcome:
        from saebench.host.build import load_sae
        from saebench.score import score_cell
        from saebench.train import read_outcome

        folder = self.run.checkpoint(cell.cell_id)
        training = read_outcome(folder)
        trained = Trained(training, source, data_s)
        sae = load_sae(folder, self.catalog).to(self.device)
        facts = training.training_facts(source.data_cost["tokens"])
        held_out, validation = self._held_out(cell, source)
        try:
            scored = score_cell(cell, sae, held_out, self.catalog, facts, validation=validation)
        except Diverged as error:  # the record keeps what is known of its training, and no score
            return CellOutcome(error.status, recorded(error), trained)
        sha256 = save_arrays(self.run.arrays(cell.cell_id), scored.arrays) if scored.arrays else None
        return CellOutcome(training.status, training.error, trained, scored, sha256)

    def _missing_parent(self, cell: Cell) -> str | None:
        """Why a child cannot begin, or None."""
        if cell.parent is None:
            return None
        parent = self.plan.cell(cell.parent)
        if self.standing.checkpoint(parent) == "whole":
            diverged = self.standing.status(parent) == Diverged.status
            return f"its parent {parent.label} diverged. Mend the parent first." if diverged else None
        return (
            f"its parent {parent.label} has no checkpoint (status {self.standing.status(parent) or 'not run'}). "
            "Mend the parent, then run with --retry-failed."
        )

    def _held_out(
        self, cell: Cell, source: TrainingSource
    ) -> tuple[list[tuple[Any, int, HeldOut]], list[tuple[Any, int, HeldOut]]]:
        """What a cell is scored on, and what a search goes by."""
        validation = self._evaluation(cell, source, cell.evaluation_datasets[:1], "validation") if cell.tune else []
        return self._evaluation(cell, source, cell.evaluation_datasets), validation

    def _evaluation(
        self, cell: Cell, source: TrainingSource, uses: Sequence[DatasetUse], part: HeldOutPart | None = None
    ) -> list[tuple[Any, int, HeldOut]]:
        settings = cell.evaluation
        return [
            (use, seed, self.sources.held_out(use, cell.model, settings, seed, training=source, part=part))
            for use in uses
            for seed in settings.seeds
        ]

    def _drop_snapshot(self, cell: Cell) -> None:
        from saebench.train.snapshot import drop_snapshot

        drop_snapshot(self.run.snapshots, cell.cell_id)

    def _write(self, cell: Cell, outcome: CellOutcome, started: str | None = None) -> None:
        require(self.run.root)
        path = self.run.record(cell.suite, cell.entry, cell.record_name)
        made = partial(
            cell_record, cell, self.plan, supersedes=superseded(path, cell), environment=self._environment(started)
        )
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
        self.standing.scored(cell)
        self._console.cell_ended(f"{cell.label} {outcome.status}")
        if outcome.status != "ok":
            self.say(f"{cell.label}: {outcome.status}: {(outcome.error or {}).get('message', '')}")
        for line in self.catalog.observe("saebench_cell_finished", record=record):
            self.say(line)

    def _replaces(self, cell: Cell, facts: Mapping[str, Any]) -> bool:
        """Whether these facts take the place of what stands: a score that was ok, of a cell made again, is not lost to a failure."""
        older = self.standing.facts(cell)
        if older is None or older["status"] != "ok":
            return True
        if facts["status"] != "ok":
            self.kept[cell.cell_id] = facts["status"]
            self.say(f"{cell.label}: what was damaged could not be made again; its record is kept")
            return False
        if names := changed_facts(older, facts):
            self.changed.add(cell.cell_id)
            self.say(f"{cell.label}: made again after damage, with other facts than before ({', '.join(names)})")
        return True

    def _environment(self, started: str | None) -> dict[str, Any]:
        return {
            "host": machine.host(self.device),
            "versions": machine.versions(),
            "threads": self.threads,
            "started": started or machine.now(),
            "finished": machine.now(),
        }
