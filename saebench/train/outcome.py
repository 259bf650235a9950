"""What training a cell came to, and its checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from saebench.api import TrainingFacts
from saebench.artifacts import read_meta, save_checkpoint
from saebench.nn.kernels import backends

if TYPE_CHECKING:
    from saebench.cells.cell import Cell

_FACTS = (
    "status",
    "steps",
    "epochs",
    "over_spent",
    "trajectory",
    "dead_fraction",
    "facts",
    "numerics",
    "input_scale",
    "fitted",
    "data",
    "paid",
    "ancestors",
    "weights_digest",
    "hooks",
)
_MEASURED = (
    "device_s",
    "data_s",
    "paid_s",
    "waited_s",
    "ancestors_s",
    "trajectory_s",
    "peak_memory_bytes",
    "peak_memory_scope",
)
_NOTHING = {"tokens": 0, "flops": 0}


@dataclass
class TrainOutcome:
    """One cell's training, finished or not.

    Attributes:
        cell_id: Which cell.
        status: ok, failed, diverged, over_budget or skipped.
        error: `{type, message}` where the status is not ok.
        steps: Optimiser steps taken.
        tokens, flops: Spent by the cell itself, at its stand-alone cost; the last step may over-spend by less than a
            batch.
        forward_flops: What the language model's forward of those tokens costs alone.
        hooks: FLOPs counted in each of the plugin's hooks (part of `flops`), the allotment, and their share of it.
        weights_digest: See `weights_digest`; None without a module.
        data: Tokens and FLOPs that making its training data cost, beyond what its ancestors paid for the same dataset.
        ancestors: All-in tokens and FLOPs of its parent.
        paid: Cost by recipe of every dataset that it or an ancestor was trained on: who has a parent has its data.
        epochs: Tokens over the distinct tokens of the source.
        over_spent: Tokens past the allotment, less than a batch.
        trajectory: `{tokens, flops, fvu, l0}` at up to 12 log-spaced points, on the training batch of that step.
        dead_fraction: Latents silent in the last fifth of the allotment; None where not observed.
        numerics: Back end and precisions, see `numerics`; None where no step was taken.
        input_scale: Inputs were divided by it.
        facts: Summaries of the numbers that the steps reported.
        fitted: True when `fit` was called in place of gradient steps.
        device_s: Measured seconds of its own work, its neighbours in the pass left out; None where training did not
            begin.
        data_s, paid_s: Measured seconds of the same: of making the data, in this run or in an earlier one.
        waited_s: Measured seconds that its batches took to be made by the model and to come, shared by all cells that
            read them.
        ancestors_s: Measured all-in seconds of its parent.
        trajectory_s: `device_s` at each point of the trajectory.
        peak_memory_bytes, peak_memory_scope: Measured; None where training did not begin.
        module: The trained module in its own units, in inference form; None unless ok.
        traceback: For `--debug`; not in the record.
    """

    cell_id: str
    status: str = "ok"
    error: dict[str, str] | None = None
    steps: int = 0
    tokens: int = 0
    flops: int = 0
    forward_flops: int = 0
    data: dict[str, int] = field(default_factory=lambda: dict(_NOTHING))
    ancestors: dict[str, int] = field(default_factory=lambda: dict(_NOTHING))
    paid: dict[str, dict[str, int]] = field(default_factory=dict)
    epochs: float = 0.0
    over_spent: int = 0
    trajectory: list[dict[str, Any]] = field(default_factory=list)
    dead_fraction: float | None = None
    input_scale: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    numerics: dict[str, Any] | None = None
    weights_digest: str | None = None
    hooks: dict[str, Any] = field(default_factory=dict)
    fitted: bool = False
    device_s: float | None = None
    data_s: float = 0.0
    paid_s: dict[str, float] = field(default_factory=dict)
    waited_s: float = 0.0
    ancestors_s: float = 0.0
    trajectory_s: list[float] = field(default_factory=list)
    peak_memory_bytes: int | None = None
    peak_memory_scope: str | None = None
    module: torch.nn.Module | None = None
    traceback: str | None = None

    @property
    def ok(self) -> bool:
        """True when there is a module to score."""
        return self.status == "ok"

    def inherit(self, meta: Mapping[str, Any]) -> None:
        """Notes what the parent cost, from its checkpoint's meta."""
        parent = TrainOutcome.from_json(meta["cell_id"], meta["training"], meta["measured"])
        self.ancestors, self.ancestors_s = parent.all_in, parent.all_in_s
        self.paid, self.paid_s = parent.paid, parent.paid_s

    def pay_data(self, recipe: str, cost: Mapping[str, int], seconds: float) -> None:
        """Notes what making its training data cost; what an ancestor made of the same dataset is not made again."""
        before, before_s = self.paid.get(recipe, _NOTHING), self.paid_s.get(recipe, 0.0)
        self.data = {unit: max(0, cost[unit] - before[unit]) for unit in _NOTHING}
        self.data_s = max(0.0, seconds - before_s)
        self.paid = {**self.paid, recipe: {unit: max(cost[unit], before[unit]) for unit in _NOTHING}}
        self.paid_s = {**self.paid_s, recipe: max(seconds, before_s)}

    @property
    def spent(self) -> dict[str, int]:
        """`spent.train` of the record."""
        return {"tokens": self.tokens, "flops": self.flops}

    @property
    def all_in(self) -> dict[str, int]:
        """`spent.all` of the record: everything it takes to have this SAE.

        Training, making the data, the parent's all-in, and the model's forwards. A forward reads the tokens that are
        trained on, so it adds FLOPs and no tokens.
        """
        return {
            "tokens": self.tokens + self.data["tokens"] + self.ancestors["tokens"],
            "flops": self.flops + self.data["flops"] + self.ancestors["flops"] + self.forward_flops,
        }

    @property
    def all_in_s(self) -> float:
        """Measured seconds of the same."""
        return (self.device_s or 0.0) + self.data_s + self.waited_s + self.ancestors_s

    @property
    def forward(self) -> dict[str, int]:
        """`spent.forward` of the record."""
        return {"tokens": self.tokens, "flops": self.forward_flops}

    def training(self) -> dict[str, Any] | None:
        """`training` of the record; None when nothing was trained."""
        if not self.steps and not self.fitted:
            return None
        return {
            "steps": self.steps,
            "over_spent": self.over_spent,
            "trajectory": self.trajectory,
            "dead_fraction": self.dead_fraction,
            "facts": self.facts,
            "numerics": self.numerics,
        }

    def training_facts(self) -> TrainingFacts:
        """What the cost metrics see."""
        return TrainingFacts(self.tokens, self.flops, self.data["tokens"], self.device_s, self.peak_memory_bytes)

    def to_json(self) -> dict[str, Any]:
        """Facts, for the checkpoint and the record: a resumed run reads them back."""
        return {
            **{name: getattr(self, name) for name in _FACTS},
            "spent": self.spent,
            "forward": self.forward,
        }

    def measured(self) -> dict[str, Any]:
        """Seconds and bytes, which differ between equal runs."""
        return {"train_s": self.device_s, **{name: getattr(self, name) for name in _MEASURED}}

    @classmethod
    def from_json(cls, cell_id: str, facts: Mapping[str, Any], measured: Mapping[str, Any]) -> TrainOutcome:
        """The outcome stored in a checkpoint, without its module."""
        spent = facts["spent"]
        return cls(
            cell_id,
            tokens=spent["tokens"],
            flops=spent["flops"],
            forward_flops=facts["forward"]["flops"],
            **{name: facts[name] for name in _FACTS},
            **{name: measured[name] for name in _MEASURED},
        )


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 of the floating tensors of a module's state dict, by name, shape and bytes; of a scalar's not.

    Seeds whose modules agree in it are one and the same dictionary. Counters and single thresholds may differ.
    """
    content = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if tensor.is_floating_point() and tensor.numel() > 1:
            content.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            content.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return content.hexdigest()


def save_outcome(outcome: TrainOutcome, cell: Cell, folder: Path) -> None:
    """Writes an ok outcome's checkpoint: tensors, and all that `load_sae` and a resumed run need.

    Raises:
        ValueError: The outcome has no module.
        MachineError: The disk is full or the folder cannot be written.
    """
    if outcome.module is None:
        raise ValueError(f"{cell.label}: status {outcome.status} has no weights to save")
    meta = {
        **asdict(cell.part),
        "cell_id": cell.cell_id,
        "base": asdict(cell.base) if cell.base else None,
        "site": asdict(cell.site),
        "d_sae": outcome.module.d_sae,
        "input_scale": outcome.input_scale,
        "tags": list(cell.tags),
        "plugin": dict(cell.plugins),
        "training": outcome.to_json(),
        "measured": outcome.measured(),
    }
    save_checkpoint(folder, outcome.module.state_dict(), meta)


def read_outcome(folder: Path) -> TrainOutcome:
    """The outcome that `save_outcome` stored, without its module.

    Raises:
        SuiteError: There is no checkpoint.
    """
    meta = read_meta(folder)
    return TrainOutcome.from_json(meta["cell_id"], meta["training"], meta["measured"])


_PRODUCTS = {
    "bf16-screen": "float32; bfloat16 screens the encoder product, and what it cannot rule out is computed again in "
    "float32; AuxK's products with dead latents are bfloat16",
}


def numerics(device: torch.device, activations: str) -> dict[str, Any]:
    """`training.numerics` of the record.

    Args:
        device: Where the cell is trained.
        activations: Precision in which its inputs were stored or handed on.
    """
    backend = backends.current(device)
    return {
        "backend": backend,
        "parameters": "float32",
        "moments": "float32",
        "products": _PRODUCTS.get(backend, "float32"),
        "activations": activations,
        "deterministic": device.type == "cpu"
        or (torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()),
    }
