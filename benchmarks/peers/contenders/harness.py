"""saebench's whole training loop: `train_pass` over a store on disk, with meter, monitor and checks, one cell or many.

The loop asks its source for a batch before each step, so the time between two requests is a step of every cell, with
all that the harness does around it and the reading of the batch. The loop runs in a thread; between turns its source
holds it.
"""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from contenders import Contender, Setting
from contenders.ours import build as build_step
from contenders.ours import config_of
from saebench.activations.rows import StoreRows
from saebench.activations.sources.training import SourceFacts, TrainingSource
from saebench.activations.store import ActivationStore
from saebench.api import ActivationBatch
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, TrainSettings
from saebench.host import load_catalog
from saebench.train import train_pass

STEPS = 10_000
"""Of the run that the timed steps are a part of: the monitor looks closer at 12 of them."""
STORED = 65_536
"""Rows of the store."""


class _Held:
    """A source whose batches come only while the clock runs. With `live`, each batch first costs a `forward`."""

    def __init__(self, inner: TrainingSource, forward: Any) -> None:
        self.inner, self.forward = inner, forward
        self.n_tokens, self.forward_flops_per_token = inner.n_tokens, inner.forward_flops_per_token
        self.data_cost, self.data_s, self.forward_s = inner.data_cost, inner.data_s, inner.forward_s
        self.requests: queue.Queue[int] = queue.Queue()
        self.done: queue.Queue[list[float] | BaseException] = queue.Queue()

    def init_sample(self, n: int) -> Tensor:
        return self.inner.init_sample(n)

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        source = self.inner.batches(batch, seed, start)
        while True:
            seconds = []
            for _ in range(self.requests.get()):
                started = perf_counter()
                rows = next(source)
                if self.forward is not None:
                    self.forward(rows.x)
                yield rows
                if rows.x.is_cuda:
                    torch.cuda.synchronize(rows.x.device)
                seconds.append(perf_counter() - started)
            self.done.put(seconds)


def _store(setting: Setting, folder: Path) -> TrainingSource:
    with ActivationStore.building(
        folder, {}, d=setting.d_in, dtype="float32", expected_rows=STORED, what="benchmark"
    ) as writer:
        while writer.n_rows < STORED:
            for rows in setting.batches:
                writer.add(ActivationBatch(rows, rows))
    store = ActivationStore.open(folder, {})
    assert store is not None
    facts = SourceFacts("synthetic", "", {}, None, {"tokens": 0, "flops": 0}, 0.0, 0, 0.0)
    rows = StoreRows(store, setting.device, load=False)
    return TrainingSource(rows, facts, frozenset(), shuffle=STORED, prefetch=0)


def _cell(setting: Setting, spec: Any, seed: int) -> Cell:
    defaults = spec.train
    lr = defaults.lr * (defaults.reference_width / setting.d_sae) ** 0.5
    train = TrainSettings(setting.batch, lr, defaults.betas, defaults.eps, defaults.clip, 0.0, defaults.decay, "rms")
    data = DatasetUse("synthetic", "synthetic", "1", "activations", {}, "recipe")
    return Cell(
        cell_id=f"cell-{seed}", score_id="s", suite="peers", entry=spec.name, point="default", sweep={}, where="peers",
        part=ArchitectureUse(spec.name, spec.version, config_of(setting)), base=None, d_in=setting.d_in,
        d_out=setting.d_in, d_sae=setting.d_sae, tags=(), model=None, dataset=data,
        evaluation=EvaluationSettings((), 1, 1, 1, (0,)), evaluation_datasets=(), init_seed=seed, data_seed=0,
        parent=None, train=train, tokens=STEPS * setting.batch, control=False, expected_l0=None, cohort="c", group="g",
    )  # fmt: skip


def build(setting: Setting) -> Contender:
    """`cells`: how many in the cohort.

    `live`: every batch first costs about one SAE step (it is one, of an SAE beside).
    """
    catalog = load_catalog()
    spec = catalog.architecture(setting.options.get("architecture", "topk")).spec
    scratch = tempfile.TemporaryDirectory()
    forward = build_step(setting).step if setting.options.get("live") else None
    source = _Held(_store(setting, Path(scratch.name) / "store"), forward)
    cells = [_cell(setting, spec, seed) for seed in range(setting.options.get("cells", 1))]

    def loop() -> None:
        try:
            for _, outcome in train_pass([(cell, source) for cell in cells], catalog, device=setting.device):
                raise RuntimeError(f"a cell ended early: {outcome.error}")
        except BaseException as error:  # noqa: BLE001 - raised again in the other thread
            source.done.put(error)

    threading.Thread(target=loop, daemon=True).start()

    def turn(steps: int) -> list[float]:
        source.requests.put(steps)
        seconds = source.done.get()
        if isinstance(seconds, BaseException):
            raise seconds
        return seconds

    return Contender(step=lambda x: turn(1), turn=turn, facts=lambda: {"cells": len(cells)}, close=scratch.cleanup)
