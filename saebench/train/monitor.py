"""What is noted while a cell trains: its trajectory, which latents fire, its steps' facts. Most steps cost nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, Diverged, LossTerms, SparseCodes
from saebench.api.errors import DIVERGED_ADVICE
from saebench.host.sae_contract import normalise_codes
from saebench.train.audit import Work, check_hints, energy
from saebench.train.meter import Meter
from saebench.train.schedule import log_spaced_steps

TRAJECTORY_POINTS = 12
PROGRESS_POINTS = 20
DEAD_WINDOW = 0.2
"""A latent counts as dead in training when it did not fire in the last fifth of the allotment."""
_NO_VARIATION = 1e-12
"""Variance under this share of the mean square is float32 rounding, not variation."""

Progress = Callable[[int, int, float | None, float | None], None]
"""`progress(tokens, allotted, fvu, l0)`: called at most `PROGRESS_POINTS` times a cell."""


@dataclass
class _FactSummary:
    n: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    last: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        self.total += value
        self.low, self.high, self.last = min(self.low, value), max(self.high, value), value

    def to_json(self) -> dict[str, float | int]:
        return {"mean": self.total / self.n, "min": self.low, "max": self.high, "last": self.last, "n": self.n}


def batch_fvu(target: Tensor, x_hat: Tensor) -> float | None:
    """FVU of one batch about its own mean, summed over tokens in float64; None where the batch has no variance."""
    variance, error = energy(target - target.mean(0)), energy(target - x_hat)
    if not math.isfinite(error) or variance <= _NO_VARIATION * energy(target):
        return None
    return error / variance


@torch.no_grad()
def own_codes(module: Any, batch: ActivationBatch, label: str) -> SparseCodes:
    """The codes that the module gives a training batch: those of its training form, where it has one of its own."""
    form = getattr(module, "training_codes", module.encode)
    codes = normalise_codes(form(batch.x), module.d_sae, n_rows=batch.n_tokens, plugin=label)
    # a module that keeps x beside its codes keeps another one now
    form(batch.x[: min(64, batch.n_tokens // 2)].flip(0))
    return codes.detach()


def l0_of(codes: SparseCodes) -> float:
    """Mean number of entries a token that are not zero."""
    return float(torch.count_nonzero(codes.values)) / codes.n_rows


class Monitor:
    """Watches one cell. Reading never changes what is trained.

    Args:
        label: The cell's, for errors.
        module: The SAE.
        meter: The cell's meter.
        batch: Tokens a step.
        progress: Told how far the cell is, or None.
        quality: Told FVU and L0 whenever they were computed.
        check_encode: Told FLOPs of products, and tokens, of encoding a batch.

    Attributes:
        trajectory: `{tokens, flops, fvu, l0}` at up to 12 log-spaced points.
    """

    def __init__(
        self,
        label: str,
        module: Any,
        meter: Meter,
        batch: int,
        progress: Progress | None,
        quality: Callable[[float | None, float], None] = lambda fvu, l0: None,
        check_encode: Callable[[int, int], None] = lambda dense, n_tokens: None,
    ) -> None:
        self._label, self._module, self._meter, self._progress = label, module, meter, progress
        self._quality, self._check_encode = quality, check_encode
        n_steps = max(1, math.ceil(meter.allotted / batch))
        self._due = [min(step * batch, meter.allotted) for step in log_spaced_steps(n_steps, TRAJECTORY_POINTS)]
        self._window = n_steps * batch - DEAD_WINDOW * meter.allotted
        self._told = 0
        self.trajectory: list[dict[str, Any]] = []
        self._facts: dict[str, _FactSummary] = {}
        self._fired: Tensor | None = None

    def check_loss(self, loss: float, terms: LossTerms) -> None:
        """Raises Diverged as soon as a loss is not finite."""
        if not math.isfinite(loss):
            penalties = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.penalties.items())
            raise Diverged(
                f"{self._label}: the loss is {loss} after {self._meter.tokens:,} of {self._meter.allotted:,} tokens"
                f"{f' (penalties: {penalties})' if penalties else ''}. {DIVERGED_ADVICE}"
            )

    def observe(self, batch: ActivationBatch, terms: LossTerms) -> None:
        """Notes one step, after it was charged and before it is taken."""
        for name, value in terms.facts.items():
            self.note_fact(name, float(value))
        tokens, allotted = self._meter.tokens, self._meter.allotted
        codes = terms.codes
        if codes is not None and tokens > self._window:
            fired = codes.firings() > 0
            self._fired = fired if self._fired is None else self._fired | fired
        due = bool(self._due) and tokens >= self._due[0]
        told = min(PROGRESS_POINTS, PROGRESS_POINTS * tokens // allotted)
        tell = self._progress is not None and told > self._told
        if not due and not tell:
            return
        if due or terms.codes is None or terms.x_hat is None:
            fvu, l0 = self._own_quality(batch, terms)
        else:  # it is only shown
            fvu, l0 = batch_fvu(batch.target, terms.x_hat), l0_of(terms.codes)
        self._quality(fvu, l0)
        if due:
            self._due = [point for point in self._due if point > tokens]
            self.trajectory.append({"tokens": tokens, "flops": self._meter.flops, "fvu": fvu, "l0": l0})
        if tell and self._progress is not None:
            self._told = told
            self._progress(min(tokens, allotted), allotted, fvu, l0)

    @torch.no_grad()
    def _own_quality(self, batch: ActivationBatch, terms: LossTerms) -> tuple[float | None, float]:
        """FVU and mean L0 of the batch as the module encodes and decodes it; what the step told is held to that."""
        with Work() as work:
            codes = own_codes(self._module, batch, self._label)
        if not hasattr(self._module, "training_codes"):  # its choice may take more than encoding does
            self._check_encode(work.dense, batch.n_tokens + min(64, batch.n_tokens // 2))
        x_hat = self._module.decode(codes)
        check_hints(terms, codes, x_hat, batch.target, self._label)
        return batch_fvu(batch.target, x_hat), l0_of(codes)

    def dead_fraction(self) -> float | None:
        """Share of latents silent in the last `DEAD_WINDOW` of the allotment; None before its end, or without codes."""
        if self._fired is None or not self._meter.exhausted:
            return None
        return float((~self._fired).double().mean())

    def facts(self) -> dict[str, Any]:
        """Mean, smallest, largest and last value of each number that the steps reported."""
        return {name: summary.to_json() for name, summary in sorted(self._facts.items())}

    def note_fact(self, name: str, value: float) -> None:
        """One step's value of one fact; one that is not finite is left out (`n` shows it)."""
        if math.isfinite(value):
            self._facts.setdefault(name, _FactSummary()).add(value)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a snapshot keeps: tensors and plain numbers."""
        facts = {name: asdict(summary) for name, summary in self._facts.items()}
        return {} if self._fired is None else {"fired": self._fired}, {
            "trajectory": self.trajectory,
            "due": self._due,
            "told": self._told,
            "facts": facts,
        }

    def load_state(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], device: torch.device) -> None:
        """Takes back what `state` gave."""
        self._fired = tensors["fired"].to(device) if "fired" in tensors else None
        self.trajectory[:] = numbers["trajectory"]
        self._due, self._told = list(numbers["due"]), int(numbers["told"])
        self._facts = {name: _FactSummary(**summary) for name, summary in numbers["facts"].items()}
