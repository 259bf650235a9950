"""What is noted while a cell trains: its trajectory, which latents fire, its steps' facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from saebench.api import ActivationBatch, Diverged, LossTerms, SparseCodes
from saebench.host.build import normalise_codes
from saebench.metrics.reconstruction import FvuAccumulator
from saebench.train.meter import Meter
from saebench.train.schedule import log_spaced_steps

TRAJECTORY_POINTS = 12
PROGRESS_POINTS = 20
DEAD_WINDOW = 0.2
"""A latent counts as dead in training when it did not fire in the last fifth of the allotment."""

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


def batch_quality(module: Any, batch: ActivationBatch, terms: LossTerms, label: str) -> tuple[float | None, float]:
    """FVU (in float64, about the batch's own mean) and mean L0 of one training batch; FVU is None where the batch has no variance.

    Reads the step's own codes and reconstruction where the loss terms carry them, else encodes and decodes.
    """
    with torch.no_grad():
        codes, x_hat = terms.codes, terms.x_hat
        if codes is None or x_hat is None:
            codes = normalise_codes(module.encode(batch.x), module.d_sae, n_rows=batch.n_tokens, plugin=label)
            x_hat = module.decode(codes)
        fvu = FvuAccumulator(batch.target.shape[1])
        fvu.update(batch.target, x_hat.detach())
        return fvu.compute().value, float(torch.count_nonzero(codes.values.detach())) / batch.n_tokens


class Monitor:
    """Watches one cell. Reading never changes what is trained.

    Args:
        label: The cell's, for errors.
        module: The SAE.
        meter: The cell's meter.
        batch: Tokens a step.
        progress: Told how far the cell is, or None.
    """

    def __init__(self, label: str, module: Any, meter: Meter, batch: int, progress: Progress | None) -> None:
        self._label, self._module, self._meter, self._progress = label, module, meter, progress
        n_steps = max(1, math.ceil(meter.allotted / batch))
        self._due = [min(step * batch, meter.allotted) for step in log_spaced_steps(n_steps, TRAJECTORY_POINTS)]
        self._told = 0
        self.trajectory: list[dict[str, Any]] = []
        self._facts: dict[str, _FactSummary] = {}
        self._last_fired: torch.Tensor | None = None

    def check_loss(self, loss: float, terms: LossTerms) -> None:
        """Raises Diverged as soon as a loss is not finite."""
        if not math.isfinite(loss):
            parts = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.penalties.items())
            raise Diverged(
                f"{self._label}: the loss is {loss} after {self._meter.tokens:,} of {self._meter.allotted:,} tokens"
                f"{f' (penalties: {parts})' if parts else ''}. Lower train.lr, or look for values that are not finite in the data."
            )

    def observe(self, batch: ActivationBatch, terms: LossTerms) -> None:
        """Notes one step, after it was charged and before it is taken."""
        self._note_facts(terms.facts)
        if terms.codes is not None:
            self._note_firing(terms.codes)
        tokens, allotted = self._meter.tokens, self._meter.allotted
        due = bool(self._due) and tokens >= self._due[0]
        told = min(PROGRESS_POINTS, PROGRESS_POINTS * tokens // allotted)
        tell = self._progress is not None and told > self._told
        if not due and not tell:
            return
        fvu, l0 = batch_quality(self._module, batch, terms, self._label)
        if due:
            self._due = [point for point in self._due if point > tokens]
            self.trajectory.append({"tokens": tokens, "flops": self._meter.flops, "fvu": fvu, "l0": l0})
        if tell and self._progress is not None:
            self._told = told
            self._progress(min(tokens, allotted), allotted, fvu, l0)

    def dead_fraction(self) -> float | None:
        """Share of latents that did not fire in the last `DEAD_WINDOW` of the allotment; None where the module showed no codes."""
        if self._last_fired is None:
            return None
        since = self._meter.tokens - DEAD_WINDOW * self._meter.allotted
        return float((self._last_fired <= since).double().mean())

    def facts(self) -> dict[str, Any]:
        """Mean, smallest, largest and last value of each number that the steps reported."""
        return {name: summary.to_json() for name, summary in sorted(self._facts.items())}

    def note_fact(self, name: str, value: float) -> None:
        """One step's value of one fact; one that is not finite is left out (`n` shows it)."""
        if math.isfinite(value):
            self._facts.setdefault(name, _FactSummary()).add(float(value))

    def _note_facts(self, facts: Mapping[str, float]) -> None:
        for name, value in facts.items():
            self.note_fact(name, float(value))

    def _note_firing(self, codes: SparseCodes) -> None:
        if self._last_fired is None:
            # everybody starts as fired at 0: silent for the whole of a run shorter than the window is still dead
            self._last_fired = torch.zeros(codes.d_sae, dtype=torch.int64, device=codes.latents.device)
        self._last_fired[codes.latents[codes.values.detach() != 0]] = self._meter.tokens
