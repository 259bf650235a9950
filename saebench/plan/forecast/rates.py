"""How fast a machine does what a plan asks for: measured, or under a named assumption where nothing was measured.

Rates are plain data. `saebench.measure.calibrate` measures them; the estimate and the budget read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import fsum, isnan, nan
from typing import TYPE_CHECKING, Any

from saebench.api.specs import Cost
from saebench.base.canonical import digest
from saebench.cells.cell import Cell, DatasetUse, ModelUse

if TYPE_CHECKING:
    from saebench.lm.facts import ModelFacts

ASSUMED_FLOPS_PER_S = 1e11
"""Sustained rate of two cores of a server CPU with AVX-512 on these shapes."""
ASSUMED_STEP_S = 0.005
"""Fixed time of one training step: a few dozen small operators and the harness's own work."""
ASSUMED_SCORE_TOKEN_S = 5e-6
"""Metrics, a token of every stream, beside the encoder product."""
ASSUMED_SAMPLE_FACTOR = 3.0
"""Sampling a token against one forward of it: one position at a time, with a cache."""
ASSUMED_OPEN_S = 5.0
"""Reading a text corpus once."""
ASSUMED_WRITE_BYTE_S = 2e-9
"""Hashing and writing a byte of a store."""
KEY_LENGTH = 16


@dataclass(frozen=True)
class TrainingRate:
    """Seconds of training one cell.

    Attributes:
        setup_s: Building the module and initialising it from data.
        step_s: One step of its batch, the harness's own work included.
        finish_token_s: Making the inference form, for each token that it reads.
    """

    setup_s: float
    step_s: float
    finish_token_s: float = 0.0


@dataclass(frozen=True)
class ModelRate:
    """Seconds of a language model.

    Attributes:
        flop_s: One FLOP of a forward without logits, as `forward_flops_per_token` counts them.
        sample_token_s: One sampled token that is not special.
        clean_token_s: Unedited forward with its losses, a token.
        loss_token_s: What all cells share of the losses: clean, zero and mean, a token that has a loss.
    """

    flop_s: float
    sample_token_s: float
    clean_token_s: float
    loss_token_s: float


@dataclass(frozen=True)
class DatasetRate:
    """Seconds of a dataset.

    Attributes:
        open_s: Reading it for the first time in a run folder; `again_s` once its cache is there.
        token_s: Turning text into a token, or making a vector.
        whole: False when reading was stopped before its end: `open_s` is a lower bound.
    """

    open_s: float
    again_s: float
    token_s: float
    whole: bool = True


class Assumed:
    """What is assumed where nothing was measured: two cores of a server CPU. `devices.Card` is one of a GPU.

    Attributes:
        read_byte_s: Bringing a byte of an activation store to the device, beside the steps. On a CPU it is part of
            what a step is measured with.
    """

    read_byte_s: float = 0.0

    def training(self, cell: Cell, cost: Cost) -> TrainingRate:
        """Of training a cell."""
        l0 = cost.expected_l0 if cost.expected_l0 is not None else cell.d_sae
        batch = cell.train.batch
        flops = batch * (cost.train_flops_per_token + l0 * cost.train_flops_per_active) + cost.step_flops
        return TrainingRate(
            0.1, ASSUMED_STEP_S + flops / ASSUMED_FLOPS_PER_S, cost.encode_flops_per_token / ASSUMED_FLOPS_PER_S
        )

    def score_token_s(self, cell: Cell, cost: Cost) -> float:
        """Of a token of a scoring pass, without the language model."""
        return ASSUMED_SCORE_TOKEN_S + cost.encode_flops_per_token / ASSUMED_FLOPS_PER_S

    def model(self, use: ModelUse, facts: ModelFacts) -> ModelRate:
        """Of a language model at its context."""
        forward = facts.forward_flops_per_token() / ASSUMED_FLOPS_PER_S
        return ModelRate(1 / ASSUMED_FLOPS_PER_S, ASSUMED_SAMPLE_FACTOR * forward, forward, 3 * forward)

    def basis(self) -> dict[str, Any]:
        """What the estimate says of it."""
        return {"flops_per_s": ASSUMED_FLOPS_PER_S, "step_s": ASSUMED_STEP_S}


@dataclass(frozen=True)
class Rates:
    """Rates by key (`training_key`, `score_key`, `model_key`, `dataset_key`); whatever is missing is assumed.

    Attributes:
        source: `measured`, or `assumed` for nothing measured at all.
        machine: Processor, threads, device, back end, date: for people and for the record.
        scores: Seconds of one scoring pass over one dataset under one seed at the suite's sizes.
        write_byte_s: Hashing and writing one byte of an activation store.
        assumed: What is taken for the rest.
        remarks: What a reader of the estimate should know.
    """

    source: str = "assumed"
    machine: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, TrainingRate] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, ModelRate] = field(default_factory=dict)
    datasets: Mapping[str, DatasetRate] = field(default_factory=dict)
    write_byte_s: float = ASSUMED_WRITE_BYTE_S
    assumed: Assumed = field(default_factory=Assumed)
    remarks: tuple[str, ...] = ()

    def training_of(self, cell: Cell, cost: Cost) -> TrainingRate:
        """Of training a cell."""
        found = self.training.get(training_key(cell))
        return found if found is not None else self.assumed.training(cell, cost)

    def score(self, cell: Cell, cost: Cost, tokens: int, losses_s: float = 0.0) -> float:
        """Of one scoring pass of a cell over `tokens` in all; a control takes what others at its place take.

        `losses_s` are forwards of the language model with the reconstruction, which what was measured holds already.
        """
        found = _between(self._scores_like(f"{score_shape(cell)}:"), cell.expected_l0)
        if found is None and cell.control:
            found = _between(self._scores_like(f"{score_place(cell)}-"), None)
        if found is not None:
            return found
        return tokens * self.assumed.score_token_s(cell, cost) + losses_s

    def _scores_like(self, prefix: str) -> list[tuple[float, float]]:
        """L0 aimed at (NaN for none) and seconds of what was measured under keys that begin so."""
        return [
            (float(key.rpartition(":")[2]), seconds) for key, seconds in self.scores.items() if key.startswith(prefix)
        ]

    def model(self, use: ModelUse, facts: ModelFacts) -> ModelRate:
        """Of a language model at its context."""
        found = self.models.get(model_key(use))
        return found if found is not None else self.assumed.model(use, facts)

    def dataset(self, use: DatasetUse, model: ModelUse | None) -> DatasetRate:
        """Of a dataset."""
        found = self.datasets.get(dataset_key(use, model))
        if found is not None:
            return found
        return DatasetRate(ASSUMED_OPEN_S, 0.5, 1e-6) if use.kind == "text" else DatasetRate(0.0, 0.0, 1e-6)

    def basis(self) -> dict[str, Any]:
        """What the estimate says of where its seconds come from."""
        return {"source": self.source, **self.machine, **(self.assumed.basis() if self.source == "assumed" else {})}


Measure = Callable[[Sequence[Cell], Mapping[str, DatasetUse]], Rates]
"""Measures what these cells need: each distinct shape of training and scoring, models and datasets once."""


def training_key(cell: Cell) -> str:
    """Equal for cells whose training step takes equally long: architecture with config, widths, batch, clipping."""
    return digest(
        {
            "part": asdict(cell.part),
            "base": asdict(cell.base) if cell.base is not None else None,
            "sizes": [cell.d_in, cell.d_out, cell.d_sae],
            "batch": cell.train.batch,
            "clip": cell.train.clip is not None,
        },
        KEY_LENGTH,
    )


def score_place(cell: Cell) -> str:
    """Equal for cells that are scored on the same streams: model and context, width, metrics, sizes."""
    evaluation = cell.evaluation
    return digest(
        {
            "model": [cell.model.digest, cell.model.context] if cell.model is not None else cell.dataset.recipe,
            "d_in": cell.d_in,
            "metrics": dict(cell.metrics),
            "sizes": [evaluation.tokens, evaluation.loss_tokens, evaluation.density_tokens],
        },
        KEY_LENGTH,
    )


def score_shape(cell: Cell) -> str:
    """Equal for cells whose scoring differs in their sparsity alone."""
    shape = [cell.part.architecture, cell.base.architecture if cell.base is not None else None, cell.d_sae]
    return f"{score_place(cell)}-{digest(shape, KEY_LENGTH)}"


def score_key(cell: Cell) -> str:
    """Equal for cells whose scoring takes equally long: their shape and the L0 that they aim at."""
    return f"{score_shape(cell)}:{nan if cell.expected_l0 is None else float(cell.expected_l0)}"


def _between(points: Sequence[tuple[float, float]], l0: float | None) -> float | None:
    """Seconds at an L0, on the line through the nearest measured ones; None where nothing was measured."""
    if not points:
        return None
    known = sorted((x, seconds) for x, seconds in points if not isnan(x))  # NaN has no place in an order
    if l0 is None or len(known) < 2:
        return fsum(seconds for _, seconds in points) / len(points)
    x = min(max(l0, known[0][0]), known[-1][0])
    for (low, before), (high, after) in pairwise(known):
        if x <= high:
            return before + (after - before) * (x - low) / (high - low) if high > low else before
    return known[-1][1]


def model_key(use: ModelUse) -> str:
    """Equal for one model at one context."""
    return digest([use.digest, use.context], KEY_LENGTH)


def dataset_key(use: DatasetUse, model: ModelUse | None) -> str:
    """Equal for one dataset as one model's tokenizer reads it."""
    return digest([use.recipe, model.digest if model is not None else None], KEY_LENGTH)
