"""Training activations as the loop takes them: read once for all cells, on the device, float32, divided by a scalar."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from saebench.activations.sources.training import TrainingSource
from saebench.api import ActivationBatch, PluginError

INIT_SAMPLE = 32_768
"""Most tokens that scale and data-dependent initialisation look at."""
FINALIZE_TOKENS = 65_536
"""Most training tokens that `finalize`, or a control's `fit`, may read; read once and kept for all cells of a pass."""


def rms_scale(x: Tensor) -> float:
    """`s = sqrt(mean ||x||^2 / d_in)`, summed in float64, so that `x / s` has mean squared norm d_in; 1.0 for zeros."""
    scale = math.sqrt(float(x.double().square().sum()) / x.numel())
    return scale if scale > 0 and math.isfinite(scale) else 1.0


def scaled(batch: ActivationBatch, scale: float, device: torch.device) -> ActivationBatch:
    """The batch and its true codes on a device, float32, divided by a scalar; a copy. `target is x` stays true."""

    def ready(x: Tensor) -> Tensor:
        x = x.to(device=device, dtype=torch.float32)
        return x.clone() if scale == 1.0 else x / scale

    x = ready(batch.x)
    truth = batch.truth.scaled(1.0 / scale) if batch.truth is not None else None
    return replace(batch, x=x, target=x if batch.target is batch.x else ready(batch.target), truth=truth)


class SharedBatch:
    """One batch for many cells: divided once for every scale among them; a cell that writes into it is refused."""

    def __init__(self, raw: ActivationBatch, device: torch.device) -> None:
        self.raw, self._device = raw, device
        self._made: dict[float, tuple[ActivationBatch, int]] = {}

    def scaled(self, scale: float) -> ActivationBatch:
        """The batch divided by `scale`. It is shared: read only."""
        if scale not in self._made:
            made = scaled(self.raw, scale, self._device)
            self._made[scale] = made, _writes(made)
        return self._made[scale][0]

    def check(self, scale: float, label: str) -> None:
        """Raises PluginError when a module wrote into the batch it got; the next cell gets a fresh one."""
        batch, writes = self._made[scale]
        if _writes(batch) != writes or batch.x.requires_grad or batch.target.requires_grad:
            del self._made[scale]
            raise PluginError(
                f"{label}: the module changed the batch it was given, which other cells read too. Work on a "
                "copy (x = x.clone())."
            )


def _writes(batch: ActivationBatch) -> int:
    """Goes up with every write in place."""
    return batch.x._version + batch.target._version


class Feed:
    """What one source gives to the cells of a pass that read it: each batch, the sample and the first tokens once.

    Args:
        source: The activations.
        batch: Tokens a step.
        seed: Of the order.
        device: Where cells are trained.

    Attributes:
        waited: Seconds that the newest batch took to come.
    """

    def __init__(self, source: TrainingSource, batch: int, seed: int, device: torch.device) -> None:
        self.source, self.batch, self.seed, self.device = source, batch, seed, device
        self.waited = 0.0
        self._batches: Iterator[ActivationBatch] | None = None
        self._index = 0
        self._sample: Tensor | None = None
        self._scale: float | None = None
        self._first: list[ActivationBatch] = []

    @property
    def sample(self) -> Tensor:
        """`[n, d_in]` float32 for initialisation, in the source's units. It is shared: read only."""
        if self._sample is None:
            self._sample = self.source.init_sample(INIT_SAMPLE).to(torch.float32)
        return self._sample

    @property
    def scale(self) -> float:
        """`rms_scale` of the sample."""
        if self._scale is None:
            self._scale = rms_scale(self.sample)
        return self._scale

    def drop_sample(self) -> None:
        """Frees the sample once every cell has begun."""
        self._sample = None

    def begin(self, index: int) -> None:
        """The next batch is number `index`."""
        self._index = index

    def next(self) -> SharedBatch | None:
        """The next batch, or None where the data ended (which they should not)."""
        started = time.perf_counter()
        if self._batches is None:
            self._batches = self.source.batches(self.batch, self.seed, self._index)
        raw = next(self._batches, None)
        self.waited = time.perf_counter() - started
        return None if raw is None else SharedBatch(raw, self.device)

    def end(self) -> None:
        """No cell reads batches any more; harmless twice."""
        if self._batches is not None:
            _close(self._batches)
        self._batches = None

    def first(self, n_tokens: int) -> Iterator[ActivationBatch]:
        """The first batches in training order that hold `n_tokens`, in the source's units.

        Up to FINALIZE_TOKENS of them are kept for the next cell.
        """
        needed = math.ceil(n_tokens / self.batch)
        kept = min(needed, math.ceil(FINALIZE_TOKENS / self.batch))
        if len(self._first) < kept:
            self._first += self._read(len(self._first), kept)
        yield from self._first[:kept]
        if needed > kept:
            yield from self._read(kept, needed)

    def _read(self, start: int, stop: int) -> Iterator[ActivationBatch]:
        batches = self.source.batches(self.batch, self.seed, start)
        try:
            yield from islice(batches, stop - start)
        finally:
            _close(batches)


def _close(batches: Iterator[ActivationBatch]) -> None:
    """Ends a generator now, and with it what it reads ahead; any other iterator has nothing to end."""
    if isinstance(batches, Generator):
        batches.close()
