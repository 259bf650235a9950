"""What has to be measured for a plan, and what of it a profile holds already, of this machine or of another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.host import Catalog
from saebench.measure.profile import Profile
from saebench.plan.contenders.metrics import streams_of
from saebench.plan.forecast.rates import (
    ASSUMED_WRITE_BYTE_S,
    Assumed,
    DatasetRate,
    Measure,
    ModelRate,
    Rates,
    TrainingRate,
    dataset_key,
    model_key,
    score_key,
    score_shape,
    training_key,
)

KINDS = ("training", "scores", "models", "datasets", "disk")


def measured_elsewhere(
    catalog: Catalog, is_it: Callable[[Mapping[str, Any]], bool], assumed: Assumed, cache: Path | None = None
) -> Measure:
    """A function that takes what was measured on another machine where the cache holds it, and assumes the rest.

    Args:
        catalog: Installed plugins.
        is_it: Tells a machine by its facts (`speed_facts`).
        assumed: For what was not measured there.
        cache: Folder of profiles; default: the user's.
    """

    def rates(cells: Sequence[Cell], datasets: Mapping[str, DatasetUse]) -> Rates:
        del datasets
        needed = ToMeasure(cells, catalog)
        for profile in reversed(Profile.kept(cache)):
            if is_it(profile.facts) and any(profile.get("training", key) is not None for key in needed.training):
                return needed.rates(profile, assumed)
        return Rates(assumed=assumed)

    return rates


@dataclass
class ToMeasure:
    """What is to be measured for some cells: the first cell of each key."""

    cells: Sequence[Cell]
    catalog: Catalog
    training: dict[str, Cell] = field(default_factory=dict)
    scores: dict[str, Cell] = field(default_factory=dict)
    models: dict[str, list[ModelUse]] = field(default_factory=dict)
    datasets: dict[str, tuple[DatasetUse, ModelUse | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if cell.trains:  # floor and ceiling rows hardly train; they are scored as their neighbours are
                self.training.setdefault(training_key(cell), cell)
            if cell.model is not None and not cell.model.is_here:
                continue  # what needs the model itself is assumed
            if cell.trains:
                shapes.setdefault(score_shape(cell), []).append(cell)
            if cell.model is not None:
                self.models.setdefault(model_key(cell.model), []).append(cell.model)
            for use in (cell.dataset, *cell.evaluation_datasets):
                if use.kind != "generated":
                    self.datasets.setdefault(dataset_key(use, cell.model), (use, cell.model))
        for cells in shapes.values():  # the sparsest and the densest: others lie between
            for pick in (min, max):
                cell = pick(cells, key=lambda cell: cell.expected_l0 or 0.0)
                self.scores.setdefault(score_key(cell), cell)

    def samples(self, key: str) -> bool:
        """True when this model is sampled."""
        return any(
            "self-sampled" in streams_of(cell, self.catalog)
            or any(use.kind == "generated" for use in (cell.dataset, *cell.evaluation_datasets))
            for cell in self.cells
            if cell.model is not None and model_key(cell.model) == key
        )  # fmt: skip

    def missing(self, profile: Profile) -> list[str]:
        """What has to be measured, for people."""
        names = {
            "training": "training steps",
            "scores": "scoring",
            "models": "language models",
            "datasets": "reading",
            "disk": "disk",
        }
        return [names[kind] for kind in KINDS if any(profile.get(kind, key) is None for key in self.keys(kind))]

    def keys(self, kind: str) -> Iterable[str]:
        """Keys of one kind."""
        return ("write",) if kind == "disk" else getattr(self, kind)

    def rates(self, profile: Profile, assumed: Assumed) -> Rates:
        """From the profile; what could not be measured is left out."""

        def found(kind: str) -> dict[str, Any]:
            values = {key: profile.get(kind, key) for key in self.keys(kind)}
            return {key: value for key, value in values.items() if value is not None}

        used = {f"{kind}/{key}": None for kind in KINDS for key in self.keys(kind)}
        datasets = {key: DatasetRate(**value) for key, value in found("datasets").items()}
        write_s = profile.get("disk", "write")
        cut = dict.fromkeys(self.datasets[key][0].name for key, rate in datasets.items() if not rate.whole)
        return Rates(
            source="measured",
            machine={**profile.facts, "date": profile.date(used)},
            training={key: TrainingRate(**value) for key, value in found("training").items()},
            scores=found("scores"),
            models={key: ModelRate(**value) for key, value in found("models").items()},
            datasets=datasets,
            remarks=tuple(
                f"reading all of {name!r} takes longer than the few seconds it was tried for: the time predicted for "
                "data is too low by the rest."
                for name in cut
            ),
            write_byte_s=ASSUMED_WRITE_BYTE_S if write_s is None else float(write_s),
            assumed=assumed,
        )
