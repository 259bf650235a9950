"""Measures how fast this machine does what a plan asks for: some seconds, then kept for the next plan."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from saebench import console
from saebench.artifacts import RunFolder, has_checkpoint
from saebench.cells.cell import Cell, DatasetUse, ModelUse
from saebench.host import Catalog
from saebench.lm.model import LanguageModel
from saebench.measure import data, training
from saebench.measure.machine import n_threads, run_numerics
from saebench.measure.needed import ToMeasure
from saebench.measure.profile import Profile, speed_facts
from saebench.plan.contenders.metrics import streams_of
from saebench.plan.forecast.rates import (
    Assumed,
    Measure,
    Rates,
    model_key,
    score_place,
    training_key,
)
from saebench.plan.grouping.memory_batches import cost_of, held_bytes, memory_limit


def measure(
    catalog: Catalog,
    *,
    device: str,
    say: Callable[[str], None],
    assumed: Assumed | None = None,
    fresh: bool = False,
    cache: Path | None = None,
) -> Measure:
    """A function that measures, in the numerics of a run, what cells need and was not measured here within a week.

    Args:
        catalog: Installed plugins.
        device: Where cells will run.
        say: Told once when something is measured, as that takes some seconds.
        assumed: What is taken for what cannot be measured; default: that of a CPU.
        fresh: Measure everything again.
        cache: Folder of profiles; default: the user's.
    """

    opened: list[Profile] = []
    assumed = assumed or Assumed()

    def rates(cells: Sequence[Cell], datasets: Mapping[str, DatasetUse]) -> Rates:
        if not opened:  # one for all calls: nothing is measured twice, even where the cache cannot be written
            opened.append(Profile(speed_facts(device), cache, say))
            if fresh:
                opened[0].forget()
        profile = opened[0]
        needed = ToMeasure(cells, catalog)
        missing = needed.missing(profile)
        if missing:
            say(f"measuring this machine: {', '.join(missing)}. Takes seconds, kept for a week")
            started = time.perf_counter()
            with (
                run_numerics(n_threads()),
                console.phase("measuring", "this machine"),
                tempfile.TemporaryDirectory(prefix="saebench-") as folder,
            ):
                _Measuring(needed, datasets, profile, catalog, device, Path(folder), assumed).measure()
            profile.save()
            say(f"measured in {time.perf_counter() - started:.0f} s")
        return needed.rates(profile, assumed)

    return rates


class _Measuring:
    """Measures what is missing from a profile, in a folder that is thrown away."""

    def __init__(
        self,
        needed: ToMeasure,
        datasets: Mapping[str, DatasetUse],
        profile: Profile,
        catalog: Catalog,
        device: str,
        folder: Path,
        assumed: Assumed,
    ) -> None:
        self.needed, self.datasets, self.profile, self.catalog = needed, datasets, profile, catalog
        self.assumed = assumed
        self.device = torch.device(device)
        self.run = RunFolder(folder)
        self.by_id = {cell.cell_id: cell for cell in needed.cells}
        self.limit = 2 * memory_limit(device, None)
        self._vectors: dict[str, Any] = {}
        self._sites: dict[str, Any] = {}
        self._lm: tuple[str, LanguageModel] | None = None

    def measure(self) -> None:
        """Everything that is missing; a plugin that fails leaves its own value out."""
        if self._lacks("disk", "write"):
            self._note("disk", "write", "disk", lambda: data.measure_disk(self.run.root))
        for key, uses in self.needed.models.items():
            if self._lacks("models", key):
                deepest = max(uses, key=lambda use: self._model(use).facts.forward_flops_per_token(use.hookpoint))
                samples = self.needed.samples(key)
                lm = self._model(deepest)
                self._note(
                    "models",
                    key,
                    f"model {deepest.id}",
                    partial(data.measure_model, lm, deepest.hookpoint, deepest.context, samples=samples),
                )
            self._read(model=key)
            self._cells(model=key)
        for key in {model_key(cell.model) for cell in self.needed.cells if cell.model and not cell.model.is_here}:
            self._cells(model=key)  # training needs no more than the sizes
        self._read(model=None)
        self._cells(model=None)

    def _read(self, model: str | None) -> None:
        for key, (use, on) in self.needed.datasets.items():
            if (model_key(on) if on is not None else None) != model or not self._lacks("datasets", key):
                continue
            if on is not None:
                call = partial(
                    data.measure_reading, use, self._model(on), on.context, self.datasets, self.run, self.catalog
                )
                self._note("datasets", key, f"reading {use.name}", call)
            elif (rows := training.quietly(partial(self._rows, use))) is not None:
                self.profile.put("datasets", key, rows[0])

    def _cells(self, model: str | None) -> None:
        here = [cell for cell in self.by_id.values() if (model_key(cell.model) if cell.model else None) == model]
        names = {cell.cell_id for cell in here}
        for key, cell in self.needed.training.items():
            if cell.cell_id in names and self._lacks("training", key):
                self._trained(cell)
        for key, cell in self.needed.scores.items():
            if cell.cell_id in names and self._lacks("scores", key) and self._trained(cell):
                site = self._site(cell)
                if site is not None:
                    call = partial(training.measure_scoring, cell, site.streams, self.run, self.catalog, self.device)
                    self._note("scores", key, f"scoring {cell.label}", call)

    def _trained(self, cell: Cell) -> bool:
        """Takes some steps of a cell, its parents first; True when its checkpoint is in the folder."""
        if has_checkpoint(self.run.checkpoint(cell.cell_id), cell.cell_id):
            return True
        if cell.parent is not None and not (cell.parent in self.by_id and self._trained(self.by_id[cell.parent])):
            return False
        cost = cost_of(cell, self.catalog)
        if cost is None or cost.training_memory_bytes(cell.train.batch) > self.limit:
            return False
        step_s = self.assumed.training(cell, cost).step_s
        rows = None if cell.model is not None else training.quietly(lambda: self._rows(cell.dataset)[1][0])
        beside = [other for other in self.needed.cells if other.cohort == cell.cohort and other.cell_id != cell.cell_id]
        neighbours = held_bytes(beside, lambda other: cost_of(other, self.catalog))
        with console.phase("measuring", f"training {cell.label}"):
            rate = training.quietly(
                lambda: training.measure_training(
                    cell, step_s, self.run, self.catalog, self.device, rows, min(neighbours, self.limit // 4)
                )
            )
        if rate is not None:
            self.profile.put("training", training_key(cell), rate)
        return has_checkpoint(self.run.checkpoint(cell.cell_id), cell.cell_id)

    def _site(self, cell: Cell) -> Any | None:
        place = score_place(cell)
        if place not in self._sites:
            lm = self._model(cell.model) if cell.model is not None else None
            vectors = None if cell.model is not None else training.quietly(lambda: self._rows(cell.dataset)[1])
            self._sites[place] = training.quietly(
                lambda: training.SiteStreams(cell, streams_of(cell, self.catalog), self.device, lm, vectors)
            )
        return self._sites[place]

    def _rows(self, use: DatasetUse) -> Any:
        if use.recipe not in self._vectors:
            self._vectors[use.recipe] = data.measure_vectors(use, self.datasets, self.run, self.catalog)
        return self._vectors[use.recipe]

    def _model(self, use: ModelUse) -> LanguageModel:
        """One language model in memory at a time."""
        if self._lm is None or self._lm[0] != use.digest:
            self._lm, self._sites = None, {}
            self._lm = use.digest, LanguageModel.of(use, self.device, self.catalog)
        return self._lm[1]

    def _lacks(self, kind: str, key: str) -> bool:
        return self.profile.get(kind, key) is None

    def _note(self, kind: str, key: str, what: str, call: Callable[[], Any]) -> None:
        with console.phase("measuring", what):
            value = training.quietly(call)
        if value is not None:
            self.profile.put(kind, key, value)
