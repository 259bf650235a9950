"""A record: what is known of one cell's training and scoring, facts and measured things apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from saebench.api.errors import SuiteError
from saebench.artifacts import read_record
from saebench.base.text import published, without_folders
from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.cells.plan import Plan
from saebench.plan.forecast.rates import training_key

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.activations.sources.training import TrainingSource
    from saebench.score import ScoreOutcome
    from saebench.train import TrainOutcome


def planned_facts(cell: Cell) -> dict[str, Any]:
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
        **({"continued": True} if cell.continued else {}),
        "parent": cell.parent,
        "init_seed": cell.init_seed,
        "data_seed": cell.data_seed,
        "d_in": cell.d_in,
        "d_out": cell.d_out,
        "d_sae": cell.d_sae,
        "expected_l0": cell.expected_l0,
        "model": model_facts(cell.model),
        "train": asdict(cell.train),
        "metric_versions": dict(cell.metrics),
    }


def tune_facts(cell: Cell, outcome: CellOutcome) -> dict[str, Any]:
    """Of a candidate of a search: its place in it, and what the search goes by; nothing for other cells."""
    if cell.tune is None:
        return {}
    validation = outcome.scored.validation if outcome.scored is not None else None
    return {"tune": {**asdict(cell.tune), "validation": validation}}


@dataclass(frozen=True)
class Trained:
    """A cell's training, and what it read.

    Attributes:
        outcome: Of this run, or read back from the checkpoint of an earlier one.
        source: Its activations.
        data_s: Seconds until they were ready in this run.
    """

    outcome: TrainOutcome
    source: TrainingSource
    data_s: float

    def dataset(self) -> dict[str, Any]:
        """What the record says of the data beyond the plan."""
        source = self.source
        return {
            "content": source.content,
            "manifest": source.manifest,
            "n_tokens": source.n_tokens,
            "epochs": self.outcome.epochs,
            "rounding": source.rounding,
        }

    def spent(self, cell: Cell) -> dict[str, dict[str, int]]:
        """Tokens and FLOPs."""
        return {
            "train": self.outcome.spent,
            "data": self.outcome.data,
            "parent": self.outcome.ancestors,
            "forward": self.outcome.forward if cell.model else {"tokens": 0, "flops": 0},
            "all": self.outcome.all_in,
        }

    def spent_s(self, cell: Cell) -> dict[str, float | None]:
        """Measured seconds."""
        outcome = self.outcome
        return {
            "train": outcome.device_s,
            # making the data and waiting for batches is shared by all cells of the pass: each is told the whole of it
            "data": outcome.data_s,
            "forward": outcome.waited_s if outcome.device_s is not None else None,
            "parent": outcome.ancestors_s,
            "all": outcome.all_in_s if outcome.device_s is not None else None,
        }


@dataclass
class CellOutcome:
    """Everything the pipeline learnt of a cell. What never happened is None, and the record says null.

    Attributes:
        status, error: What became of it; the training or the scoring of a cell that failed may still be known.
        arrays_sha256: Digest of its per-latent arrays.
        observer_errors: What observers raised.
    """

    status: str
    error: dict[str, str] | None = None
    trained: Trained | None = None
    scored: ScoreOutcome | None = None
    arrays_sha256: str | None = None
    observer_errors: list[str] = field(default_factory=list)


def budget_facts(cell: Cell, plan: Plan) -> dict[str, Any]:
    """What the cell was given; controls have no share.

    Its share in the budget's own unit (which candidates of a search divide), the tokens that came of it, and the
    calibration where a share of seconds became tokens.
    """
    facts = {
        "primary": plan.budget.get("primary", "tokens"),
        "share": None if cell.control else plan.budget.get("share"),
        "tokens": cell.tokens if cell.trains else None,
        "counts": plan.budget.get("counts", "train"),
        **({"candidates": cell.tune.n_candidates} if cell.tune is not None else {}),
    }
    calibration = plan.budget.get("calibration")
    if calibration is None or cell.control:
        return facts
    machine = {name: value for name, value in calibration.items() if not name.startswith("seconds_per_")}
    return facts | {"calibration": {**machine, "seconds_per_step": calibration["seconds_per_step"][training_key(cell)]}}


def model_facts(use: ModelUse | None) -> dict[str, Any] | None:
    """A folder is told by its name and digest, not by where it is."""
    if use is None:
        return None
    facts: dict[str, Any] = published(asdict(use))
    del facts["load"], facts["is_here"]
    load = use.load.to_json()
    return {**facts, "notes": list(map(without_folders, use.notes)), **({"load": load} if load else {})}


def _dataset_facts(use: DatasetUse) -> dict[str, Any]:
    """Of the model that makes its vectors, where there is one, the digest."""
    facts: dict[str, Any] = published(asdict(use))
    del facts["holds"]  # an estimate; the record counts
    model = facts.pop("model")
    return facts if model is None else {**facts, "model": model["digest"]}


def without_columns(metric_info: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What metrics are, and how tables print them: that is no fact of a score, so that a new heading changes none."""
    facts = {id: {key: info[key] for key in info if key != "column"} for id, info in metric_info.items()}
    return facts, {id: column for id, info in metric_info.items() if (column := info.get("column")) is not None}


_SPENT_ON = ("train", "data", "parent", "forward", "all", "scoring")


def cell_record(
    cell: Cell, plan: Plan, outcome: CellOutcome, *, supersedes: str | None, environment: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of one cell.

    Args:
        environment: `host`, `versions`, `threads`, `backend`, `started`, `finished`: measured, part of no id.
    """
    metric_info, columns = without_columns(outcome.scored.metric_info if outcome.scored is not None else {})
    facts = {
        **planned_facts(cell),
        **tune_facts(cell, outcome),
        "status": outcome.status,
        "error": outcome.error,
        "suite_digest": plan.suite_digest,
        "budget": budget_facts(cell, plan),
        **_outcome_facts(cell, outcome),
        "metric_info": metric_info,
    }
    return {
        "kind": "cell",
        "cell_id": cell.cell_id,
        "score_id": cell.score_id,
        "supersedes": supersedes,
        "arrays_sha256": outcome.arrays_sha256,
        "columns": columns,
        "facts": facts,
        "measured": {**environment, **_measured(cell, plan, outcome)},
    }


def _outcome_facts(cell: Cell, outcome: CellOutcome) -> dict[str, Any]:
    """What training and scoring came to."""
    trained, scored = outcome.trained, outcome.scored
    training = trained.outcome if trained is not None else None
    numerics = (training.numerics if training is not None else None) or {}
    spent = {} if trained is None else trained.spent(cell)
    if scored is not None:
        spent["scoring"] = scored.spent
    dataset = {**_dataset_facts(cell.dataset), "content": None, "manifest": {}, "epochs": None, "n_tokens": None}
    return {
        "dataset": dataset if trained is None else {**dataset, **trained.dataset()},
        "token_policy": None if trained is None else trained.source.token_policy,
        "input_scale": None if training is None else training.input_scale,
        "spent": {name: spent.get(name, {"tokens": 0, "flops": 0}) for name in _SPENT_ON},
        "training": training.training() if training is not None and cell.trains else None,
        "hooks": {} if training is None else training.hooks,
        "weights_digest": None if training is None else training.weights_digest,
        "deterministic": bool(numerics.get("deterministic", True)),
        "evaluation": {} if scored is None else scored.evaluation,
        **({"batch_coupled": True} if scored is not None and scored.batch_coupled else {}),
        "metrics": {} if scored is None else scored.metrics,
        "details": {} if scored is None else scored.details,
        "sae_facts": {} if scored is None else scored.sae_facts,
    }


def _measured(cell: Cell, plan: Plan, outcome: CellOutcome) -> dict[str, Any]:
    """Seconds, bytes and what else differs between equal runs."""
    trained, scored = outcome.trained, outcome.scored
    times: dict[str, float] = {}
    spent_s: dict[str, float | None] = dict.fromkeys(_SPENT_ON)
    memory = None
    if trained is not None:
        training = trained.outcome
        times = {"train_s": training.device_s or 0.0, "data_s": trained.data_s}
        spent_s |= trained.spent_s(cell)
        memory = {"bytes": training.peak_memory_bytes, "scope": training.peak_memory_scope}
    if scored is not None:
        times["score_s"] = spent_s["scoring"] = scored.seconds
    calibration = plan.budget.get("calibration")
    return {
        **({} if calibration is None else {"calibration": calibration}),  # should plan.json be lost
        "metrics": {} if scored is None else scored.measured_metrics,
        "times": times,
        "spent_s": spent_s,
        "trajectory_s": [] if trained is None else trained.outcome.trajectory_s,
        "peak_memory": memory,
        "plugins": dict(cell.plugins),
        "observer_errors": outcome.observer_errors,
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
