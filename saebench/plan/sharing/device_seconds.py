"""What turns device seconds into tokens: seconds of one step of every contender, measured once, frozen in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from saebench.cells.cell import Cell, ModelUse
from saebench.plan.contenders.contender import Contender
from saebench.plan.forecast.rates import Rates, model_key, training_key


@dataclass(frozen=True)
class Calibration:
    """Seconds by contender and by model.

    Attributes:
        steps: Seconds of one training step by contender key.
        samples: Seconds of one sampled token by model key; for `counts: all`.
        machine: Processor, threads, device, date.
        keys: Contender key by contender of this plan; not written down.
    """

    steps: Mapping[str, float]
    samples: Mapping[str, float] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[Contender, str] = field(default_factory=dict)

    def step_s(self, contender: Contender) -> float:
        """Seconds of one step."""
        return self.steps[self.keys[contender]]

    def lacks(self, contender: Contender) -> bool:
        """True for a contender that could not be measured."""
        return self.keys[contender] not in self.steps

    def sample_s(self, model: ModelUse) -> float | None:
        """Seconds of one sampled token; None where that could not be measured."""
        return self.samples.get(model_key(model))

    def to_json(self) -> dict[str, Any]:
        """What the plan writes down, and `resumed` reads."""
        return {
            **self.machine,
            "seconds_per_step": dict(sorted(self.steps.items())),
            "seconds_per_sampled_token": dict(sorted(self.samples.items())),
        }


def resumed(frozen: Mapping[str, Any], to_measure: Mapping[Contender, Cell]) -> Calibration | None:
    """The calibration that an earlier plan of this suite wrote down; None where it lacks a contender or a model."""
    keys = {contender: training_key(cell) for contender, cell in to_measure.items()}
    try:
        steps = {key: float(frozen["seconds_per_step"][key]) for key in sorted(set(keys.values()))}
        samples = {
            model_key(cell.model): float(frozen["seconds_per_sampled_token"][model_key(cell.model)])
            for cell in to_measure.values()
            if cell.model is not None and _samples(cell)
        }
    except (KeyError, TypeError, ValueError):
        return None
    if not all(seconds > 0 for seconds in (*steps.values(), *samples.values())):
        return None
    machine = {key: value for key, value in frozen.items() if not key.startswith("seconds_per_")}
    return Calibration(steps, samples, machine, keys)


def calibrated(rates: Rates, to_measure: Mapping[Contender, Cell]) -> Calibration:
    """From measured rates; a contender that could not be measured is left out."""
    keys = {contender: training_key(cell) for contender, cell in to_measure.items()}
    models = {model_key(cell.model) for cell in to_measure.values() if cell.model is not None and _samples(cell)}
    # rounded, so that what a reader sees in the plan is what the shares were made from
    return Calibration(
        {key: _rounded(rates.training[key].step_s) for key in set(keys.values()) & rates.training.keys()},
        {key: _rounded(rates.models[key].sample_token_s) for key in models & rates.models.keys()},
        dict(rates.machine),
        keys,
    )


def _samples(cell: Cell) -> bool:
    return cell.dataset.kind == "generated"


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.6g}")
