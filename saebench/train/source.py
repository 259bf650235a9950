"""Training activations as the loop takes them: on the device, in float32, divided by one scalar."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from saebench.api import ActivationBatch


class BatchSource(Protocol):
    """Training activations of one cohort, as `saebench.data` offers them."""

    @property
    def n_tokens(self) -> int:
        """Distinct tokens."""
        ...

    @property
    def forward_flops_per_token(self) -> int:
        """FLOPs of the language model's forward up to the hook; 0 without a model."""
        ...

    def init_sample(self, n: int) -> Tensor:
        """At most n activations `[<= n, d_in]`, the same for every cell."""
        ...

    def batches(self, batch: int, seed: int) -> Iterator[ActivationBatch]:
        """Endless batches, reshuffled every epoch, the same for the same arguments."""
        ...


def rms_scale(x: Tensor) -> float:
    """`s = sqrt(mean ||x||^2 / d_in)`, summed in float64: `x / s` has mean squared norm d_in. 1.0 for all-zero input."""
    scale = math.sqrt(float(x.double().square().sum()) / x.numel())
    return scale if scale > 0 and math.isfinite(scale) else 1.0


def scaled(batch: ActivationBatch, scale: float, device: torch.device) -> ActivationBatch:
    """The batch on a device, in float32, divided by one scalar; `target is x` stays so. True codes, where there are any, too."""

    def ready(x: Tensor) -> Tensor:
        x = x.to(device=device, dtype=torch.float32)
        return x if scale == 1.0 else x / scale

    x = ready(batch.x)
    truth = batch.truth.scaled(1.0 / scale) if batch.truth is not None else None
    return replace(batch, x=x, target=x if batch.target is batch.x else ready(batch.target), truth=truth)
