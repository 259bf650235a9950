"""Tilted empirical risk minimisation (Li, Beirami, Sanjabi, Smith, ICLR 2021, eq. 1) as token weights."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def term_weights(losses: Tensor, tilt: float) -> Tensor:
    """Weights whose loss has the gradient of `(1 / t) log mean exp(t * l / mean(l))`, up to the factor mean(l).

    `w = softmax(tilt * l / mean(l))`. The batch mean is detached, so `tilt` has no unit and means the same for every
    model: 0 is the mean, and a token whose loss is 1 above the mean (in means) weighs `exp(tilt)` times as much.

    Args:
        losses: `[B]`, not negative.
        tilt: t. Any finite number: the softmax subtracts its maximum first.

    Returns:
        `[B]`, not negative, sum 1. Uniform where all losses are zero.
    """
    mean = losses.mean()
    if float(mean) == 0.0:
        return torch.full_like(losses, 1.0 / losses.numel())
    return torch.softmax(tilt * (losses / mean), 0)


def effective_sample_size(weights: Tensor) -> float:
    """`1 / sum(w^2)`: how many tokens decide a step, from 1 to B."""
    return 1.0 / float(weights.double().pow(2).sum())
