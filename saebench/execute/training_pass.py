"""One pass: cells that read the same tokens are trained side by side; each is saved, reloaded, scored and recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, ParamSpec, TypeVar

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
from saebench.artifacts import RunFolder, refuse, save_arrays
from saebench.cells.cell import Cell, DatasetUse
from saebench.cells.plan import Cohort, Plan
from saebench.execute.pass_progress import PassWatch
from saebench.execute.record_writer import RecordWriter
from saebench.execute.records import CellOutcome, Trained
from saebench.execute.resume import FolderState
from saebench.measure import machine
from saebench.plan.grouping.memory_batches import cost_of, memory_batches, memory_capped, memory_limit

if TYPE_CHECKING:
    from saebench.activations.sources.held_out.streams import HeldOut
    from saebench.activations.sources.run_data import RunData
    from saebench.activations.sources.training import TrainingSource
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.host import Catalog

    Evaluations = list[tuple[DatasetUse, int, HeldOut]]
    """Dataset, evaluation seed, streams."""

GB = 1_000_000_000

T = TypeVar("T")
P = ParamSpec("P")


class PassRunner:
    """Trains and scores cells, pass by pass.

    Args:
        plan, run, catalog, device: Of the run.
        sources: Activations and held-out data.
        state: What is proven of the folder.
        records: Writes what became of each cell.
        say: Prints one line for people.
        debug: Raise unknown errors of scoring, and say the tracebacks of training.
        snapshot_every_s: Seconds between two snapshots of the cells in training.

    Attributes:
        without_data: Cells whose training data could not be opened, and why; they have no record yet.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        catalog: Catalog,
        sources: RunData,
        state: FolderState,
        records: RecordWriter,
        *,
        device: str,
        say: Callable[[str], None],
        debug: bool,
        snapshot_every_s: float,
    ) -> None:
        self._plan, self._run, self._catalog, self._sources = plan, run, catalog, sources
        self._state, self._records, self._device, self._say = state, records, device, say
        self._debug, self._snapshot_every_s, self._console = debug, snapshot_every_s, console.current()
        self.without_data: list[tuple[Cell, Exception]] = []
        self._memory_gb: float | None = plan.budget.get("memory_gb")
        self._share_bytes = int(self._memory_gb * GB) if self._memory_gb else None

    def run(self, cohorts: Sequence[Cohort], todo: Mapping[str, Sequence[Cell]]) -> None:
        """Trains the cells of some cohorts in as few passes over their tokens as parents and memory allow; scores them.

        Args:
            cohorts: They read the same tokens.
            todo: Cells to train or to score, by cohort key.
        """
        cells = [cell for cohort in cohorts for cell in todo[cohort.key]]
        trained = {cell.cell_id for cell in cells if self._state.checkpoint(cell) == "whole"}
        reads = [any(cell.cell_id not in trained for cell in todo[cohort.key]) for cohort in cohorts]
        started = time.perf_counter()
        try:
            with contained():
                opened = self._sources.training_pass(cohorts, reads)
        except (MachineError, Damaged):
            raise
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            if self._debug and not isinstance(error, SaebenchError):
                raise
            self.without_data += [(cell, error) for cell in cells]  # the others continue
            return
        data_s = time.perf_counter() - started
        sources = {
            cell.cell_id: source for cohort, source in zip(cohorts, opened, strict=True) for cell in todo[cohort.key]
        }
        for cell in cells:
            if cell.cell_id in trained:
                self._drop_snapshot(cell)
                self._console.spared("training", cell.tokens)
                self._score(cell, sources[cell.cell_id], data_s, None)
        limit = memory_limit(self._device, self._memory_gb)
        for together in memory_batches(cells, lambda cell: cost_of(cell, self._catalog), limit, trained):
            self._train(together, sources, data_s)

    def _train(self, cells: Sequence[Cell], sources: Mapping[str, TrainingSource], data_s: float) -> None:
        """Trains cells side by side, each saved as soon as it has ended; then scores them."""
        from saebench.train import save_outcome, train_pass

        ready = [cell for cell in cells if self._is_ready(cell, sources[cell.cell_id])]
        if not ready:
            return
        parents = {cell.parent: self._run.checkpoint(cell.parent) for cell in ready if cell.parent is not None}
        saved: list[Cell] = []
        # a live source runs the model between the steps
        beside = self._plan.estimate.memory_parts.get("activations", 0)
        most = self._share_bytes + beside if self._share_bytes else None
        with PassWatch(ready, self._catalog, self._say) as watch, memory_capped(self._device, most):
            for cell, trained in train_pass(
                [(cell, sources[cell.cell_id]) for cell in ready],
                self._catalog,
                parents=parents,
                device=self._device,
                memory_share_bytes=self._share_bytes,
                progress=watch,
                snapshots=self._run.snapshots,
                snapshot_every_s=self._snapshot_every_s,
            ):
                if trained.ok:
                    save_outcome(trained, cell, self._run.checkpoint(cell.cell_id))
                    self._state.trained(cell)
                    trained.module = None  # scored from the file, so that a resumed run reads the same
                    saved.append(cell)
                    continue
                if self._debug and trained.traceback:
                    self._say(trained.traceback)
                left = Trained(trained, sources[cell.cell_id], data_s)
                outcome = CellOutcome(trained.status, trained.error, left)
                outcome.observer_errors += watch.errors.pop(cell.cell_id, [])
                self._records.write(cell, outcome, watch.began[cell.cell_id])
        for cell in saved:
            self._score(cell, sources[cell.cell_id], data_s, watch)

    def _is_ready(self, cell: Cell, source: TrainingSource) -> bool:
        """Whether a cell can be trained and scored; one that cannot gets its record here.

        What it will be scored on is opened before its training: data that cannot be used ends it now, not after hours.
        """
        if (parent := self._missing_parent(cell)) is not None:
            self._records.write(cell, CellOutcome("skipped", {"type": "CellError", "message": parent}))
            return False
        outcome = self._caught(self._held_out, cell, source)
        if isinstance(outcome, CellOutcome):
            self._records.write(cell, outcome)
            return False
        return True

    def _score(self, cell: Cell, source: TrainingSource, data_s: float, watch: PassWatch | None) -> None:
        """Scores a cell whose checkpoint is stored, and writes its record."""
        if watch is None:  # trained by an earlier run
            started, errors = machine.now(), self._catalog.observe("saebench_cell_started", cell=asdict(cell))
        else:
            started, errors = watch.began[cell.cell_id], watch.errors[cell.cell_id]
        with self._console.phase("scoring", cell.label, amount=1):
            outcome = self._caught(self._scored, cell, source, data_s)
        outcome.observer_errors += errors
        self._records.write(cell, outcome, started)

    def _caught(self, make: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | CellOutcome:
        """What `make` gives; where it raises, the outcome of its cell. What the machine refuses is raised."""
        try:
            with contained():
                return make(*args, **kwargs)
        except MachineError:
            raise
        except SaebenchError as error:
            return CellOutcome(error.status if isinstance(error, CellError) else "failed", recorded(error))
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            if self._debug:
                raise
            return CellOutcome("failed", recorded(error))

    def _scored(self, cell: Cell, source: TrainingSource, data_s: float) -> CellOutcome:
        from saebench.host.build import load_sae
        from saebench.score import score_cell
        from saebench.train import read_outcome

        folder = self._run.checkpoint(cell.cell_id)
        training = read_outcome(folder)
        trained = Trained(training, source, data_s)
        sae, decoder = (load_sae(folder, self._catalog).to(self._device) for _ in range(2))
        facts = training.training_facts()
        held_out, validation = self._held_out(cell, source)
        try:
            scored = score_cell(cell, sae, held_out, self._catalog, facts, decoder=decoder, validation=validation)
        except (Diverged, PluginError) as error:  # the record keeps what is known of its training, and no score
            return CellOutcome(getattr(error, "status", "failed"), recorded(error), trained)
        sha256 = save_arrays(self._run.arrays(cell.cell_id), scored.arrays) if scored.arrays else None
        return CellOutcome(training.status, training.error, trained, scored, sha256)

    def _missing_parent(self, cell: Cell) -> str | None:
        """Why a child cannot begin, or None."""
        if cell.parent is None:
            return None
        parent = self._plan.cell(cell.parent)
        if self._state.checkpoint(parent) == "whole":
            diverged = self._state.status(parent) == Diverged.status
            return f"its parent {parent.label} diverged. Mend the parent first." if diverged else None
        return (
            f"its parent {parent.label} has no checkpoint (status {self._state.status(parent) or 'not run'}). "
            "Mend the parent, then run with --retry-failed."
        )

    def _held_out(self, cell: Cell, source: TrainingSource) -> tuple[Evaluations, Evaluations]:
        """What a cell is scored on, and what a search goes by."""
        validation = self._evaluation(cell, source, cell.evaluation_datasets[:1], "validation") if cell.tune else []
        return self._evaluation(cell, source, cell.evaluation_datasets), validation

    def _evaluation(
        self, cell: Cell, source: TrainingSource, uses: Sequence[DatasetUse], part: HeldOutPart | None = None
    ) -> Evaluations:
        settings = cell.evaluation
        return [
            (use, seed, self._sources.held_out(use, cell.model, settings, seed, training=source, part=part))
            for use in uses
            for seed in settings.seeds
        ]

    def _drop_snapshot(self, cell: Cell) -> None:
        from saebench.train.snapshot import drop_snapshot

        drop_snapshot(self._run.snapshots, cell.cell_id)
