"""Group records: what is scored over cells that differ in one thing (the seeds of one point, or datasets besides)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, cast

from saebench.api.errors import Damaged, MachineError, contained, describe
from saebench.api.metrics import GroupMember
from saebench.artifacts import RunFolder, prove, read_arrays, read_record, refuse, save_arrays, write_record
from saebench.base.canonical import digest
from saebench.base.text import without_folders
from saebench.cells.cell import Cell, ModelUse
from saebench.cells.plan import Cohort, Group
from saebench.execute.records import model_facts, without_columns
from saebench.execute.resume import FolderState
from saebench.plan.grouping.groups import GROUP_TOKENS, member_label, reads_codes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from saebench.activations.sources.held_out.streams import HeldOut
    from saebench.activations.sources.run_data import RunData
    from saebench.api.sae import SparseAutoencoder
    from saebench.host import Catalog
    from saebench.score import GroupOutcome
    from saebench.score.group_codes import Allowance

_SAMPLES = 2
"""Samples of training activations that stay in memory."""


class GroupRunner:
    """Scores groups of one run, one after the other; what a group needs in memory goes with it.

    Args:
        run: Where checkpoints, arrays and records are stored.
        catalog: Installed plugins.
        sources: Held-out data, as cells were scored on it.
        device: Where members encode.
        state: What is proven of the folder.
        cohorts: Of the plan; the data that members learnt from.
    """

    def __init__(
        self,
        run: RunFolder,
        catalog: Catalog,
        sources: RunData,
        device: str,
        state: FolderState,
        cohorts: Sequence[Cohort] = (),
    ) -> None:
        self._run, self._catalog, self._sources, self._device, self._state = run, catalog, sources, device, state
        self._cohorts = {cohort.key: cohort for cohort in cohorts}
        # groups of one site come one after the other, and one over datasets has several
        self._sample = lru_cache(maxsize=_SAMPLES)(self._training_sample)
        self._model: str | None = None

    def use_model(self, use: ModelUse | None) -> None:
        """Releases another language model than this one: one is in memory at a time."""
        if use is not None:
            if self._model not in (None, use.digest):
                self._sources.release()
            self._model = use.digest

    def is_due(self, group: Group, cells: Sequence[Cell], statuses: Mapping[str, str]) -> bool:
        """False where a record of these members, statuses and versions is stored with its arrays, and did not fail.

        One that failed is tried again without a flag: the plugin that raised may have been mended.
        """
        group_id = group_id_of([cell.score_id for cell in cells], group.metrics)
        try:
            record = self._record(group)
            if record is None or record["group_id"] != group_id or record["facts"]["status"] == "failed":
                return True
            found = [(member["score_id"], member["status"]) for member in record["facts"]["members"]]
            if found != [(cell.score_id, statuses[cell.cell_id]) for cell in cells]:
                return True
            sha256, arrays = record["arrays_sha256"], self._run.group_arrays(group_id)
            gone = not os.path.lexists(arrays) and any(self._state.checkpoint(cell) == "missing" for cell in cells)
            if sha256 is not None and not gone:  # gone: a person freed the space, and nothing needs them
                prove(arrays, sha256)
        except Damaged as error:
            self._state.say(f"{error.found}. The group is scored again")
            return True
        return False

    def _record(self, group: Group) -> dict[str, Any] | None:
        """The group's record; None where there is none.

        Raises:
            Damaged: It is not what was written, or is that of another group.
        """
        path = self._path(group)
        if not os.path.lexists(path):
            return None
        record = read_record(path, "group")
        name = group.suite, group.entry, group.point, "+".join(group.vary)
        if name != tuple(record["facts"].get(key) for key in ("suite", "entry", "point", "vary")):
            raise Damaged(f"{path}: damaged (it is the record of another group)")
        return record

    def score(
        self,
        group: Group,
        cells: Sequence[Cell],
        statuses: Mapping[str, str],
        environment: Callable[[], dict[str, Any]],
    ) -> dict[str, str] | None:
        """Scores a group; writes its arrays, then its record.

        Args:
            group, cells, statuses: Its members and what became of them.
            environment: Called at the end: what the record says of machine and times.

        Returns:
            The record's `error`: what failed, or None.
        """
        ready = [cell for cell in cells if statuses[cell.cell_id] == "ok"]
        missing = [
            f"{member_label(cell, group.vary)} ({statuses[cell.cell_id]})" for cell in cells if cell not in ready
        ]
        outcome = self._scored(group, ready, missing)
        plugins = {name: self._catalog.group_metric(name).provenance() for name in group.metrics}
        record = group_record(group, list(cells), statuses, outcome, environment=environment(), plugins=plugins)
        if outcome.arrays:
            record["arrays_sha256"] = save_arrays(self._run.group_arrays(record["group_id"]), outcome.arrays)
        try:
            older = self._record(group)
        except Damaged:
            older = None
        write_record(self._path(group), record)
        if older is not None and older["group_id"] != record["group_id"]:
            self._run.group_arrays(older["group_id"]).unlink(missing_ok=True)
        return outcome.error

    def _scored(self, group: Group, ready: Sequence[Cell], missing: Sequence[str]) -> GroupOutcome:
        """The group's scores. All members are on the device together while it runs, and are freed when it returns."""
        from saebench.score import score_group

        members, failure = self._ready(group, ready)
        return score_group(group, members, self._catalog, missing=missing, failure=failure)

    def _path(self, group: Group) -> Path:
        return self._run.group_record(group.suite, group.folder, group.name)

    def _ready(self, group: Group, cells: Sequence[Cell]) -> tuple[list[GroupMember], str | None]:
        """The members, or why they cannot be had: a plugin that raises while one is loaded fails this group alone."""
        try:
            with contained():
                return self._members(group, cells), None
        except (Damaged, MachineError, MemoryError):
            raise
        except Exception as error:
            if refusal := refuse(error):
                raise refusal from error
            return [], without_folders(describe(error))

    def _members(self, group: Group, cells: Sequence[Cell]) -> list[GroupMember]:
        from saebench.host.build import load_sae
        from saebench.score.group_codes import Allowance
        from saebench.score.one_pass import batch_size

        streams = reads_codes(group, self._catalog)
        allowance, batch = Allowance(), min((batch_size(cell.d_sae) for cell in cells), default=1)
        members = []
        for cell in cells:
            sae = cast(
                "SparseAutoencoder", load_sae(self._run.checkpoint(cell.cell_id), self._catalog).to(self._device)
            )
            record = read_record(self._run.record(cell.suite, cell.entry, cell.record_name))
            arrays = read_arrays(self._run.arrays(cell.cell_id), record["arrays_sha256"])
            density = arrays.get("density")
            members.append(
                GroupMember(
                    label=member_label(cell, group.vary),
                    sae=sae,
                    tags=frozenset(cell.tags),
                    dead=None if density is None else density == 0,
                    facts=member_facts(cell),
                    arrays=arrays,
                    codes=self._codes(cell, sae, batch, allowance) if streams else None,
                    training=partial(self._sample, cell.cohort) if cell.cohort in self._cohorts else None,
                )
            )
        return members

    def _codes(self, cell: Cell, sae: SparseAutoencoder, batch: int, allowance: Allowance) -> Any:
        from saebench.score.group_codes import HeldOutCodes

        return HeldOutCodes(
            sae,
            cell.d_out,
            partial(self._held_out, cell),
            n_tokens=GROUP_TOKENS,
            batch=batch,
            label=f"{cell.label} ({cell.part.architecture})",
            allowance=allowance,
        )

    def _training_sample(self, key: str, n: int) -> Tensor:
        """Random rows of what a cohort learnt from."""
        cohort = self._cohorts[key]
        self.use_model(cohort.model)
        return self._sources.training_sample(cohort, n)

    def _held_out(self, cell: Cell) -> HeldOut:
        """The first evaluation dataset under the first evaluation seed; the store was built when it was scored."""
        use = cell.model
        self.use_model(use)
        settings = cell.evaluation
        return self._sources.held_out(cell.evaluation_datasets[0], use, settings, settings.seeds[0], training=None)


def member_facts(cell: Cell) -> dict[str, Any]:
    """What a group metric is told of a member, beside the SAE itself."""
    return {
        "entry": cell.entry,
        "point": cell.point,
        "dataset": cell.dataset.name,
        "hookpoint": cell.model.hookpoint_name if cell.model is not None else None,
        "init_seed": cell.init_seed,
        "data_seed": cell.data_seed,
        "cell_id": cell.cell_id,
        "score_id": cell.score_id,
    }


def group_id_of(score_ids: Sequence[str], metric_versions: Mapping[str, str]) -> str:
    """What decides a group's scores."""
    return digest({"members": list(score_ids), "metrics": dict(metric_versions)})


def group_record(
    group: Group,
    cells: list[Cell],
    statuses: Mapping[str, str],
    outcome: GroupOutcome,
    *,
    environment: Mapping[str, Any],
    plugins: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of one group.

    Its arrays are named by its `group_id`: who saves them adds `arrays_sha256`.
    """
    first = cells[0]
    metric_info, columns = without_columns(outcome.metric_info)
    members = [
        {
            "label": member_label(cell, group.vary),
            "entry": cell.entry,
            "point": cell.point,
            "dataset": cell.dataset.name,
            "data_seed": cell.data_seed,
            "cell_id": cell.cell_id,
            "score_id": cell.score_id,
            "init_seed": cell.init_seed,
            "status": statuses[cell.cell_id],
        }
        for cell in cells
    ]
    facts = {
        "status": outcome.status,
        "error": outcome.error,
        "suite": group.suite,
        "entry": group.entry,
        "point": group.point,
        "vary": "+".join(group.vary),
        "architecture": " + ".join(dict.fromkeys(cell.part.architecture for cell in cells)),
        "control": first.control,
        "model": model_facts(first.model),
        "dataset": first.dataset.name,
        "datasets": list(dict.fromkeys(cell.dataset.name for cell in cells)),
        "d_in": first.d_in,
        "d_sae": first.d_sae,
        "members": members,
        "metrics": outcome.metrics,
        "metric_info": metric_info,
        "metric_versions": outcome.metric_versions,
        "details": outcome.details,
        "arrays": sorted(outcome.arrays),
    }
    group_id = group_id_of([cell.score_id for cell in cells], outcome.metric_versions)
    measured = {**environment, "times": outcome.times, "plugins": dict(plugins)}
    return {
        "kind": "group",
        "group_id": group_id,
        "arrays_sha256": None,
        "columns": columns,
        "facts": facts,
        "measured": measured,
    }
