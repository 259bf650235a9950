"""A record: what is known of one cell's training and scoring, facts and measured things apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from saebench.api.errors import SuiteError
from saebench.artifacts import read_record
from saebench.base.canonical import digest
from saebench.base.text import published, without_folders
from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.cells.plan import Group, Plan
from saebench.plan.forecast.rates import training_key
from saebench.plan.grouping.groups import member_label

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.activations.sources.training import TrainingSource
    from saebench.train import TrainOutcome


def part_facts(cell: Cell) -> dict[str, Any]:
    """What the plan knows of a cell, as every record of it says, whatever became of it."""
    return {
        "suite": cell.suite,
        "entry": cell.entry,
        "point": cell.point,
        "sweep": dict(cell.sweep),
        "architecture": cell.part.architecture,
        "architecture_version": cell.part.version,
        "config": dict(cell.part.config),
        "base": asdict(cell.base) if cell.base else None,
        "tags": sorted(cell.tags),
        "control": cell.control,
        "parent": cell.parent,
        "init_seed": cell.init_seed,
        "data_seed": cell.data_seed,
        "d_in": cell.d_in,
        "d_out": cell.d_out,
        "d_sae": cell.d_sae,
        "expected_l0": cell.expected_l0,
        "model": _model_facts(cell.model),
        "train": asdict(cell.train),
        "metric_versions": dict(cell.metrics),
    }


def tune_facts(cell: Cell, outcome: CellOutcome) -> dict[str, Any]:
    """Of a candidate of a search: its place in it, and what the search goes by; nothing for other cells."""
    if cell.tune is None:
        return {}
    return {"tune": {**asdict(cell.tune), "validation": outcome.validation}}


@dataclass
class CellOutcome:
    """Everything the pipeline learnt of a cell. What never happened stays empty, and the record says null."""

    status: str
    error: dict[str, str] | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    token_policy: dict[str, Any] | None = None
    training: dict[str, Any] | None = None
    input_scale: float | None = None
    spent: dict[str, dict[str, int]] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    validation: dict[str, Any] | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    metric_info: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    sae_facts: dict[str, Any] = field(default_factory=dict)
    measured_metrics: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    spent_s: dict[str, float | None] = field(default_factory=dict)
    trajectory_s: list[float] = field(default_factory=list)
    peak_memory: dict[str, Any] = field(default_factory=dict)
    observer_errors: list[str] = field(default_factory=list)
    arrays_sha256: str | None = None
    deterministic: bool = True


def trained_outcome(cell: Cell, source: TrainingSource, trained: TrainOutcome, data_s: float) -> CellOutcome:
    """What training left, in the record's words.

    Args:
        cell: The cell.
        source: Its activations.
        trained: Of training, or read back from its checkpoint.
        data_s: Seconds until its activations were ready.
    """
    trains = not cell.control and trained.device_s is not None
    return CellOutcome(
        trained.status,
        trained.error,
        dataset={
            "content": source.content,
            "manifest": source.manifest,
            "n_tokens": source.n_tokens,
            "epochs": trained.epochs,
            "rounding": source.rounding,
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
        times={"train_s": trained.device_s or 0.0, "data_s": data_s},
        spent_s={
            "train": trained.device_s,
            # making the data and waiting for batches is shared by all cells of the pass: each is told the whole of it
            "data": data_s,
            "forward": trained.waited_s if trains else None,
            "parent": trained.ancestors_s if cell.parent is not None else 0.0,
        },
        trajectory_s=trained.trajectory_s,
        peak_memory={"bytes": trained.peak_memory_bytes, "scope": trained.peak_memory_scope},
        deterministic=bool((trained.numerics or {}).get("deterministic", True)),
    )


def budget_facts(cell: Cell, plan: Plan) -> dict[str, Any]:
    """What the cell was given: its share in the budget's own unit (which candidates of a search divide), the tokens that came of it,
    and the calibration where a share of seconds became tokens. Controls have no budget."""
    facts = {
        "primary": plan.budget.get("primary", "tokens"),
        "share": None if cell.control else plan.budget.get("share"),
        "tokens": None if cell.control else cell.tokens,
        "counts": plan.budget.get("counts", "train"),
        **({"candidates": cell.tune.n_candidates} if cell.tune is not None else {}),
    }
    calibration = plan.budget.get("calibration")
    if calibration is None or cell.control:
        return facts
    machine = {name: value for name, value in calibration.items() if not name.startswith("seconds_per_")}
    return facts | {"calibration": {**machine, "seconds_per_step": calibration["seconds_per_step"][training_key(cell)]}}


def _model_facts(use: ModelUse | None) -> dict[str, Any] | None:
    """A folder is told by its name and digest, not by where it is."""
    if use is None:
        return None
    facts: dict[str, Any] = published(asdict(use))
    return {**facts, "notes": list(map(without_folders, use.notes))}


def _dataset_facts(use: DatasetUse) -> dict[str, Any]:
    """Of the model that makes its vectors, where there is one, the digest."""
    facts: dict[str, Any] = published(asdict(use))
    del facts["holds"]  # an estimate; the record counts
    model = facts.pop("model")
    return facts if model is None else {**facts, "model": model["digest"]}


def _without_columns(metric_info: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics are, and how tables print them: that is no fact of a score, so that a new heading changes none."""
    infos = {id: {key: info[key] for key in info if key != "column"} for id, info in metric_info.items()}
    return infos, {id: column for id, info in metric_info.items() if (column := info.get("column")) is not None}


_PARTS = ("train", "data", "parent", "forward", "scoring")


def cell_record(
    cell: Cell, plan: Plan, outcome: CellOutcome, *, supersedes: str | None, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of one cell.

    Args:
        environment: `host`, `versions`, `threads`, `started`, `finished`: measured, part of no id.
    """
    infos, columns = _without_columns(outcome.metric_info)
    dataset = {
        **_dataset_facts(cell.dataset),
        "content": None,
        "manifest": {},
        "epochs": None,
        "n_tokens": None,
        **outcome.dataset,
    }
    facts = {
        **part_facts(cell),
        **tune_facts(cell, outcome),
        "status": outcome.status,
        "error": outcome.error,
        "suite_digest": plan.suite_digest,
        "dataset": dataset,
        "token_policy": outcome.token_policy,
        "input_scale": outcome.input_scale,
        "budget": budget_facts(cell, plan),
        "spent": {part: outcome.spent.get(part, {"tokens": 0, "flops": 0}) for part in _PARTS},
        "training": outcome.training,
        "evaluation": outcome.evaluation,
        "metrics": outcome.metrics,
        "metric_info": infos,
        "details": outcome.details,
        "sae_facts": outcome.sae_facts,
        "deterministic": outcome.deterministic,
    }
    calibration = plan.budget.get("calibration")
    measured = {
        **environment,
        **({} if calibration is None else {"calibration": calibration}),  # should plan.json be lost
        "metrics": outcome.measured_metrics,
        "times": outcome.times,
        "spent_s": {part: outcome.spent_s.get(part) for part in _PARTS},
        "trajectory_s": outcome.trajectory_s,
        "peak_memory": outcome.peak_memory or None,
        "plugins": dict(cell.plugins),
        "observer_errors": outcome.observer_errors,
    }
    return {
        "kind": "cell",
        "cell_id": cell.cell_id,
        "score_id": cell.score_id,
        "supersedes": supersedes,
        "arrays_sha256": outcome.arrays_sha256,
        "columns": columns,
        "facts": facts,
        "measured": measured,
    }


def superseded(path: Path, cell: Cell) -> str | None:
    """The score whose place the record at `path` takes: the newest other record of the same cell."""
    others = []
    for other in sorted(path.parent.glob(f"{cell.point}-s{cell.init_seed}-*.json")):
        if other.name == path.name:
            continue
        try:
            record = read_record(other)
        except SuiteError:
            continue
        if record["cell_id"] == cell.cell_id:
            others.append((record["measured"].get("finished") or "", record["score_id"]))
    return max(others)[1] if others else None


def group_id_of(score_ids: Sequence[str], metric_versions: Mapping[str, str]) -> str:
    """What decides a group's scores."""
    return digest({"members": list(score_ids), "metrics": dict(metric_versions)})


def group_record(
    group: Group,
    cells: list[Cell],
    statuses: Mapping[str, str],
    outcome: Any,
    *,
    environment: Mapping[str, Any],
    plugins: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of one group: `outcome` has metrics, metric_info, metric_versions, details, arrays and status.

    Its arrays are named by its `group_id`: who saves them adds `arrays_sha256`.
    """
    first = cells[0]
    infos, columns = _without_columns(outcome.metric_info)
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
        "model": _model_facts(first.model),
        "dataset": first.dataset.name,
        "datasets": list(dict.fromkeys(cell.dataset.name for cell in cells)),
        "d_in": first.d_in,
        "d_sae": first.d_sae,
        "members": members,
        "metrics": outcome.metrics,
        "metric_info": infos,
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
