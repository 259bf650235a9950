"""The plan: a suite expanded into cells, cohorts and groups, frozen and written down before any work.

Everything here is plain data, JSON in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from saebench.api.errors import SuiteError
from saebench.cells.cell import Cell, DatasetUse, ModelUse

PLAN_SCHEMA_VERSION = 1

SEEDS_ALONE = ("init_seed",)
"""What most groups vary."""


@dataclass(frozen=True)
class ActivationUse:
    """How activations reach the trainer; nothing here changes a batch (suite block `activations`).

    Attributes:
        source: `store` or `live`.
        build: A store is built `ahead` of training or in `parallel` with its first epoch.
        prefetch: Blocks that a background thread keeps ready; None: by the device.
        quota_gb: Most that the run's stores may take, in 10^9 bytes; None: what the disk has.
    """

    source: str = "store"
    build: str = "ahead"
    prefetch: int | None = None
    quota_gb: float | None = None


@dataclass(frozen=True)
class Cohort:
    """Cells that read the same activations in the same batches. `key` is a digest; `cells` in training order."""

    key: str
    model: ModelUse | None
    dataset: DatasetUse
    data_seed: int
    batch: int
    tokens: int
    """Longest allotment among its cells: what the activation store holds at most."""
    dtype: str
    cells: tuple[str, ...]
    after: tuple[str, ...] = ()
    """Keys of cohorts that hold parents of these cells."""
    d_in: int = 0
    """Width of its activations."""
    shuffle: int = 65_536
    """Rows of one shuffled block."""
    activations: ActivationUse = ActivationUse()


@dataclass(frozen=True)
class Group:
    """Cells equal but for what is varied. One cell alone gives null with a reason.

    Attributes:
        key: Digest of what its members share.
        suite, entry, point: Names for people; `entry` names all entries (`topk + faithful`).
        name: File stem of its record.
        cells, metrics: Members; version by name of each group metric spec.
        vary: Aspects that the members may differ in, sorted (see `GroupMetricSpec.vary`).
    """

    key: str
    suite: str
    entry: str
    point: str
    name: str
    cells: tuple[str, ...]
    metrics: Mapping[str, str]
    vary: tuple[str, ...] = SEEDS_ALONE

    @property
    def folder(self) -> str:
        """Folder of its record: the entry's name; `across-dataset` where more than the init seed varies."""
        more = [name for name in self.vary if name != "init_seed"]
        return f"across-{'+'.join(more)}" if more else self.entry


CELL_PHASES = ("loading", "reading", "sampling", "activations", "held-out", "training", "scoring")
"""Kinds of phases that are over when all cells have ended: loading models, turning documents into tokens, sampling the
model, writing activations (a live source makes them while training), making held-out data, training, scoring cells."""
PHASES = ("planning", *CELL_PHASES, "groups", "leaderboard")


@dataclass(frozen=True)
class CellEstimate:
    """What one cell is predicted to take by itself, beside what it shares with others (data, model, groups).

    Attributes:
        training_s, scoring_s: Its steps; its passes over held-out data, checkpoint and record.
        train_flops: Of its own training, as the meter counts them.
        all_tokens, all_flops, all_s: Everything it takes to have its SAE alone (`plan.forecast.all_in`).
        device_bytes: Weights, gradients, moments and the workspace of a step.
        disk_bytes: Checkpoint, record, per-latent arrays.
    """

    training_s: float
    scoring_s: float
    train_flops: int
    all_tokens: int
    all_flops: int
    all_s: float
    device_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What the plan predicts, before anything runs.

    Attributes:
        train_tokens, train_flops: Of the cells' own training, as the meter counts them.
        forward_flops: Of the language model, for all that is read, sampled and scored.
        seconds: All of it: the sum over `phases`.
        phases: Seconds by `PHASES`, as a run shows them.
        disk_bytes: The sum of the five below.
        store_bytes: Activation stores, those for scoring included.
        checkpoint_bytes: Trained weights.
        record_bytes: Plan, records, groups, per-latent arrays.
        page_bytes: The leaderboard.
        snapshot_bytes: Most that snapshots of unfinished cells take, old and new at once; gone at the end.
        memory_bytes: Of the process; `device_memory_bytes` of it are the model and the phase that takes most (on a CPU
            it is the same memory).
        memory_parts: Bytes by part. `interpreter`, `kernels` and `model` are there with one of the phases
            `activations`, `training`, `scoring`, `groups`. `stores` are mapped rows: they come on top while memory is
            free, and the system takes it back where it is short.
        basis: Where the seconds come from: `source` measured or assumed, and the machine.
        cells: Of each cell, by `cell_id`.
    """

    train_tokens: int
    train_flops: int
    forward_flops: int
    seconds: float
    phases: Mapping[str, float]
    disk_bytes: int
    store_bytes: int
    checkpoint_bytes: int
    record_bytes: int
    page_bytes: int
    snapshot_bytes: int
    memory_bytes: int
    device_memory_bytes: int
    memory_parts: Mapping[str, int] = field(default_factory=dict)
    basis: Mapping[str, Any] = field(default_factory=dict)
    cells: Mapping[str, CellEstimate] = field(default_factory=dict)

    @property
    def data_s(self) -> float:
        """Making training data, as records measure it."""
        return sum(self.phases[kind] for kind in ("reading", "sampling", "activations"))

    @property
    def scoring_s(self) -> float:
        """Scoring cells and groups, as records measure it: with the held-out data that cells share."""
        return sum(self.phases[kind] for kind in ("held-out", "scoring", "groups"))


@dataclass(frozen=True)
class Refused:
    """An entry (or its cells at one place) that is left out: its data cannot be had. `reason` names file and line."""

    entry: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The suite, expanded. `cells` in an order in which every parent comes before its children."""

    suite: str
    source: str
    suite_digest: str
    budget: Mapping[str, Any]
    cells: tuple[Cell, ...]
    cohorts: tuple[Cohort, ...]
    groups: tuple[Group, ...]
    estimate: Estimate
    warnings: tuple[str, ...] = ()
    schema_version: int = PLAN_SCHEMA_VERSION
    datasets: Mapping[str, DatasetUse] = field(default_factory=dict)
    """Every dataset of the suite by name: a dataset plugin may ask for another one."""
    refused: tuple[Refused, ...] = ()
    """What has no cells in it, and why."""

    def cell(self, cell_id: str) -> Cell:
        """The cell with this id."""
        return next(cell for cell in self.cells if cell.cell_id == cell_id)

    def cells_of(self, entry: str) -> list[Cell]:
        """The cells of one entry, of all that they start from, and of children the parent that was trained on as long.

        Raises:
            SuiteError: There is no such entry, or it was refused.
        """
        entries = sorted({cell.entry for cell in self.cells})
        if entry not in entries:
            refused = [refused.reason for refused in self.refused if refused.entry == entry]
            lacking = f"--only {entry}: the suite has no such entry. Entries are: {', '.join(entries)}."
            raise SuiteError("\n".join(refused) or lacking)
        by_id = {cell.cell_id: cell for cell in self.cells}
        keep: set[str] = set()
        stack = [cell.cell_id for cell in self.cells if cell.entry == entry]
        while stack:
            cell_id = stack.pop()
            if cell_id not in keep:
                keep.add(cell_id)
                if parent := by_id[cell_id].parent:
                    stack.append(parent)
        parents = {cell.parent for cell in self.cells if cell.entry == entry and cell.parent is not None}
        keep |= {cell.cell_id for cell in self.cells if cell.continued and cell.parent in parents}
        return [cell for cell in self.cells if cell.cell_id in keep]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready mapping."""
        return asdict(self)
