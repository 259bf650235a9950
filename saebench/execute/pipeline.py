"""From a plan to records: cohort by cohort, each cell trained, saved, reloaded from disk, scored, recorded; then groups.

A cell is trained when its checkpoint stands, and scored when its record stands: whatever was finished before a kill is kept, and
the facts end equal to those of an uninterrupted run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from saebench.api.errors import CellError, MachineError, SaebenchError, SuiteError
from saebench.api.metrics import GroupMember
from saebench.artifacts import (
    RunFolder,
    has_checkpoint,
    read_arrays,
    read_record,
    save_arrays,
    write_record,
)
from saebench.execute import provenance
from saebench.execute.records import CellOutcome, cell_record, group_record
from saebench.plan.model import Cell, Cohort, Group, Plan

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.data import EvaluationSource, Sources, TrainingSource
    from saebench.host import Catalog
    from saebench.train import TrainOutcome

GB = 1_000_000_000


def _error(error: BaseException) -> dict[str, str]:
    lines = str(error).strip().splitlines()
    return {"type": type(error).__name__, "message": lines[0] if lines else type(error).__name__}


class Pipeline:
    """One run of one plan in one folder.

    Args:
        plan: The frozen plan.
        run: Its folder, locked by the caller.
        catalog: Installed plugins.
        device: Where to train and score.
        say: Prints one line for people.
        bar: A progress bar over cells, with `update(n)` and `set_postfix_str`.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        catalog: Catalog,
        *,
        device: str,
        say: Callable[[str], None],
        bar: Any,
        debug: bool = False,
    ) -> None:
        from saebench.data import Sources

        self.plan, self.run, self.catalog, self.device, self.say, self.bar, self.debug = (
            plan,
            run,
            catalog,
            device,
            say,
            bar,
            debug,
        )
        self.sources: Sources = Sources(plan.datasets, run=run, catalog=catalog, device=device, progress=True)
        self.threads = provenance.n_threads()

    # ---- which cells need work -------------------------------------------------------------------------------------

    def record_path(self, cell: Cell) -> Path:
        """Where this cell's record stands."""
        return self.run.record(cell.suite, cell.entry, cell.record_name)

    def status_of(self, cell: Cell) -> str | None:
        """Status of the record at the cell's own path, or None. A damaged record counts as none: it is written anew."""
        path = self.record_path(cell)
        if not path.is_file():
            return None
        try:
            status: str = read_record(path)["facts"]["status"]
        except SuiteError as error:
            self.say(f"{error} It is written anew now.")
            return None
        return status

    def is_done(self, cell: Cell, retry_failed: bool) -> bool:
        """True when the cell needs no work."""
        status = self.status_of(cell)
        return status == "ok" or (status is not None and not retry_failed)

    # ---- the run ---------------------------------------------------------------------------------------------------

    def execute(self, cells: Sequence[Cell], *, retry_failed: bool) -> dict[str, str]:
        """Trains and scores what is missing among `cells`.

        Returns:
            The status of every one of these cells.
        """
        wanted = {cell.cell_id: cell for cell in cells}
        model: str | None = None
        for cohort in self.plan.cohorts:
            members = [wanted[cell_id] for cell_id in cohort.cells if cell_id in wanted]
            todo = [cell for cell in members if not self.is_done(cell, retry_failed)]
            self.bar.update(len(members) - len(todo))
            if todo:
                if cohort.model and model not in (None, cohort.model.digest):
                    self.sources.release()  # one language model in memory at a time
                model = cohort.model.digest if cohort.model else model
                self._cohort(cohort, todo)
        statuses = {cell.cell_id: self.status_of(cell) or "failed" for cell in cells}
        for group in self.plan.groups:
            if all(cell_id in wanted for cell_id in group.cells):
                self._group(group, [wanted[cell_id] for cell_id in group.cells], statuses)
        return statuses

    def _cohort(self, cohort: Cohort, todo: Sequence[Cell]) -> None:
        started = time.perf_counter()
        try:
            source = self.sources.training(cohort)
        except SaebenchError:
            raise  # bad input or a full disk: nothing of this run can be right, say so at once
        except Exception as error:
            if self.debug:
                raise
            for cell in todo:  # a dataset plugin's bug: its cells fail, the others go on
                self._write(cell, CellOutcome("failed", _error(error)))
            return
        data_s = time.perf_counter() - started
        for cell in todo:
            self._cell(cell, source, data_s)

    def _cell(self, cell: Cell, source: TrainingSource, data_s: float) -> None:
        started = provenance.now()
        self.bar.set_postfix_str(cell.label)
        errors = self.catalog.observe("saebench_cell_started", cell=asdict(cell))
        try:
            outcome = self._train_and_score(cell, source)
        except (KeyboardInterrupt, MachineError):
            raise
        except SaebenchError as error:
            outcome = CellOutcome(error.status if isinstance(error, CellError) else "failed", _error(error))
        except Exception as error:
            if self.debug:
                raise
            outcome = CellOutcome("failed", _error(error))
        outcome.times.setdefault("data_s", data_s)
        outcome.observer_errors += errors
        self._write(cell, outcome, started)

    def _train_and_score(self, cell: Cell, source: TrainingSource) -> CellOutcome:
        from saebench.host.build import load_sae
        from saebench.score import score_cell
        from saebench.train import read_outcome, save_outcome, train_cell

        folder = self.run.checkpoint(cell.cell_id)
        parent = self._parent_folder(cell)
        if not has_checkpoint(folder, cell.cell_id):
            memory = self.plan.budget.get("memory_gb")
            trained = train_cell(
                cell,
                source,
                self.catalog,
                parent_folder=parent,
                device=self.device,
                memory_share_bytes=int(memory * GB) if memory else None,
                progress=self._progress(cell),
            )
            if not trained.ok:
                return self._outcome_of(cell, source, trained)
            save_outcome(trained, cell, folder)
        # from the file also when it was written just now: a resumed run reads the same
        trained = read_outcome(folder)
        outcome = self._outcome_of(cell, source, trained)
        sae = load_sae(folder, self.catalog).to(self.device)
        facts = trained.training_facts(outcome.spent["data"]["tokens"])
        scored = score_cell(cell, sae, self._evaluation(cell, source), self.catalog, facts)
        outcome.metrics, outcome.metric_info, outcome.details = scored.metrics, scored.metric_info, scored.details
        outcome.measured_metrics, outcome.evaluation, outcome.sae_facts = (
            scored.measured_metrics,
            scored.evaluation,
            scored.sae_facts,
        )
        outcome.spent["scoring"] = scored.spent
        outcome.times["score_s"] = scored.seconds
        if scored.arrays:
            save_arrays(self.run.arrays(cell.cell_id), scored.arrays)
        return outcome

    def _parent_folder(self, cell: Cell) -> Path | None:
        if cell.parent is None:
            return None
        folder = self.run.checkpoint(cell.parent)
        if not has_checkpoint(folder, cell.parent):
            parent = self.plan.cell(cell.parent)
            raise _Skipped(
                f"its parent {parent.label} has no checkpoint (status {self.status_of(parent) or 'not run'}). Mend the parent, then run with --retry-failed."
            )
        return folder

    def _evaluation(self, cell: Cell, source: TrainingSource) -> list[tuple[Any, int, EvaluationSource]]:
        return [
            (dataset, seed, self.sources.evaluation(dataset, cell.model, cell.evaluation, seed, training=source))
            for dataset in cell.evaluation_datasets
            for seed in cell.evaluation.seeds
        ]

    def _progress(self, cell: Cell) -> Callable[[int, int, float | None, float | None], None]:
        def report(tokens: int, allotted: int, fvu: float | None, l0: float | None) -> None:
            self.catalog.observe(
                "saebench_train_progress", cell_id=cell.cell_id, tokens=tokens, allotted=allotted, fvu=fvu, l0=l0
            )

        return report

    @staticmethod
    def _outcome_of(cell: Cell, source: TrainingSource, trained: TrainOutcome) -> CellOutcome:
        """What training left, in the record's words."""
        return CellOutcome(
            trained.status,
            trained.error,
            dataset={
                "content": source.content,
                "manifest": source.manifest,
                "n_tokens": source.n_tokens,
                "epochs": trained.epochs,
            },
            token_policy=source.token_policy,
            training=None if cell.control else trained.training(),
            input_scale=trained.input_scale,
            spent={
                "train": trained.spent,
                "data": dict(source.data_cost),
                "parent": trained.ancestors,
                "forward": trained.forward if cell.model else {"tokens": 0, "flops": 0},
            },
            times={"train_s": trained.device_s or 0.0},
        )

    def _write(self, cell: Cell, outcome: CellOutcome, started: str | None = None) -> None:
        path = self.record_path(cell)
        record = cell_record(
            cell, self.plan, outcome, supersedes=self._superseded(cell), environment=self._environment(started)
        )
        write_record(path, record)
        self.bar.update(1)
        if outcome.status != "ok":
            self.say(f"{cell.label}: {outcome.status}: {(outcome.error or {}).get('message', '')}")
        for line in self.catalog.observe("saebench_cell_finished", record=record):
            self.say(line)

    def _superseded(self, cell: Cell) -> str | None:
        """The score that this one takes the place of: the newest other record of the same cell."""
        others = []
        for path in sorted(self.record_path(cell).parent.glob(f"{cell.point}-s{cell.init_seed}-*.json")):
            if path.name == cell.record_name:
                continue
            try:
                record = read_record(path)
            except SuiteError:
                continue
            if record["cell_id"] == cell.cell_id:
                others.append((record["measured"].get("finished") or "", record["score_id"]))
        return max(others)[1] if others else None

    def _environment(self, started: str | None) -> dict[str, Any]:
        return {
            "host": provenance.host(self.device),
            "versions": provenance.versions(),
            "threads": self.threads,
            "started": started or provenance.now(),
            "finished": provenance.now(),
        }

    # ---- groups ----------------------------------------------------------------------------------------------------

    def _group(self, group: Group, cells: Sequence[Cell], statuses: Mapping[str, str]) -> None:
        from saebench.host.build import load_sae
        from saebench.score import score_group

        path = self.run.group_record(group.suite, group.entry, group.name)
        members_now = [(cell.score_id, statuses[cell.cell_id]) for cell in cells]
        if path.is_file():
            try:
                old = read_record(path, "group")["facts"]
                if [(member["score_id"], member["status"]) for member in old["members"]] == members_now and old[
                    "metric_versions"
                ] == dict(group.metrics):
                    return
            except SuiteError as error:
                self.say(f"{error} It is written anew now.")
        started = provenance.now()
        self.bar.set_postfix_str(f"stability of {group.entry} {group.point}")
        members = []
        for cell in cells:
            if statuses[cell.cell_id] == "ok":
                density = read_arrays(self.run.arrays(cell.cell_id)).get("density")
                members.append(
                    GroupMember(
                        label=f"s{cell.init_seed}",
                        sae=load_sae(self.run.checkpoint(cell.cell_id), self.catalog),  # type: ignore[arg-type]
                        tags=frozenset(cell.tags),
                        dead=None if density is None else density == 0,
                    )
                )
        missing = [f"s{cell.init_seed} ({statuses[cell.cell_id]})" for cell in cells if statuses[cell.cell_id] != "ok"]
        outcome = score_group(group, members, self.catalog, missing=missing)
        plugins = {name: self.catalog.group_metric(name).provenance() for name in group.metrics}
        write_record(
            path,
            group_record(
                group, list(cells), statuses, outcome, environment=self._environment(started), plugins=plugins
            ),
        )


class _Skipped(CellError):
    """A cell that cannot start because of another one."""

    status = "skipped"
