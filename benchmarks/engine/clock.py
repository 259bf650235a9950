"""Clocks: how a pass is timed from within, and the bare steps that it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from saebench.activations.sources.training import TrainingSource
from saebench.api import ActivationBatch, AfterStep, Site, StepInfo
from saebench.base.random import generator
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.host.build import build_module
from saebench.nn import loss_and_grad
from saebench.train.optimiser import Optimiser


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that an action takes."""
    started = now(device)
    action()
    return now(device) - started


class Clock:
    """A source that times the pass which reads it: from the request of a batch to the next one lie its reading and a
    step of every cell.

    Args:
        inner: The real one.
        sample: What `init_sample` gives, so that no pass pays for it on the clock of another.
        between: Called with the number of each batch before its clock starts.

    Attributes:
        spans: Seconds of each batch.
    """

    def __init__(
        self, inner: TrainingSource, sample: Tensor, device: torch.device, between: Callable[[int], None] | None = None
    ) -> None:
        self.inner, self.sample, self.device, self.between = inner, sample, device, between
        self.n_tokens, self.forward_flops_per_token = inner.n_tokens, inner.forward_flops_per_token
        self.data_cost, self.data_s, self.forward_s = inner.data_cost, inner.data_s, inner.forward_s
        self.spans: list[float] = []

    def init_sample(self, n: int) -> Tensor:
        """See `TrainingSource`."""
        return self.sample[:n]

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """See `TrainingSource`."""
        rows = self.inner.batches(batch, seed, start)
        try:
            for index in count(start):
                if self.between is not None:
                    self.between(index)
                started = now(self.device)
                try:
                    yield next(rows)
                finally:  # also where the loop takes no more: it says so right behind the last step
                    self.spans.append(now(self.device) - started)
        finally:
            with suppress(AttributeError):
                rows.close()


def read(source: TrainingSource, cell: Cell, n_batches: int, device: torch.device) -> list[float]:
    """Seconds of each batch when no cell trains on it."""
    batches = source.batches(cell.train.batch, cell.data_seed)
    spans = [timed(lambda: next(batches), device) for _ in range(n_batches)]
    batches.close()
    return spans


class Bare:
    """The steps of a cell without a harness: gradients, optimiser, `after_step`. The same bits, from the same seeds.

    Args:
        cell: An architecture of its own, on RMS-normalised data.
        sample: What it is initialised from, in the source's units.
        scale: What inputs are divided by; `scaled` does.
    """

    def __init__(self, cell: Cell, catalog: Catalog, sample: Tensor, scale: float, device: torch.device) -> None:
        self.cell, self.scale, self.tokens, self.index = cell, scale, 0, 0
        draws = generator(cell.init_seed, "init")
        site = Site(cell.d_in, cell.d_out)
        module: Any = build_module(cell.part, cell.base, site=site, generator=draws, catalog=catalog)
        self.module = module = module.to(device).train()
        if hasattr(module, "init_from_data"):
            with torch.no_grad():
                module.init_from_data((sample / scale).to(device), draws)
        self.optimiser = Optimiser(module, cell.train, "bare")
        self.generator = generator(cell.init_seed, "train")
        self.after_step = getattr(module, "after_step", None)

    def scaled(self, batch: ActivationBatch) -> ActivationBatch:
        """What a step takes."""
        x = batch.x / self.scale
        return ActivationBatch(x, x)

    def step(self, batch: ActivationBatch) -> None:
        """One step on a scaled batch."""
        before, allotted = self.tokens, self.cell.tokens
        info = StepInfo(self.index, before / allotted, before, allotted)
        terms = loss_and_grad(self.module, batch, info)
        self.tokens += batch.n_tokens
        self.optimiser.step(info.progress, self.tokens / allotted)
        self.index += 1
        if self.after_step is not None:
            with torch.no_grad():
                self.after_step(AfterStep(batch, terms, info, self.generator, self.optimiser.reset_moments))
            self.optimiser.constraints.enforce_again()


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def same(some: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return some.keys() == others.keys() and all(torch.equal(some[name], others[name]) for name in some)
