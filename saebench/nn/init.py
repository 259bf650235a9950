"""Initialisation: directions, biases and thresholds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MEDIAN_SAMPLES = 32_768


@torch.no_grad()
def unit_rows_(matrix: Tensor) -> Tensor:
    """Scale every row to norm 1, in place; a zero row stays zero."""
    return matrix.div_(matrix.norm(dim=1, keepdim=True).clamp_min(torch.finfo(matrix.dtype).tiny))


def tied_init(d_sae: int, d_in: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """`W_enc`, `W_dec`, both `[d_sae, d_in]` float32: the same uniformly random unit rows (Gao et al., section A.1)."""
    W_dec = unit_rows_(torch.randn(d_sae, d_in, generator=generator))
    return W_dec.clone(), W_dec


def _sample(x: Tensor, limit: int) -> Tensor:
    """At most `limit` rows, evenly spread."""
    return x[:: -(-x.shape[0] // limit)] if x.shape[0] > limit else x


@torch.no_grad()
def geometric_median(
    x: Tensor, *, max_samples: int = MEDIAN_SAMPLES, tol: float = 1e-7, max_steps: int = 200
) -> Tensor:
    """The point with the smallest sum of distances to the rows of `x [N, d]`, by Weiszfeld's iteration in float64.

    Stops when a step is shorter than `tol` times the mean distance. At most `max_samples` rows, evenly spread, are
    used.

    Returns:
        `[d]` in x's dtype.
    """
    if x.shape[0] == 0:
        raise ValueError("geometric_median: no samples")
    points = _sample(x, max_samples).double()
    median = points.mean(0)
    for _ in range(max_steps):
        distances = (points - median).norm(dim=1)
        scale = float(distances.mean())
        if scale == 0.0:
            break
        # A point that the estimate sits on would weigh infinitely much; this bound keeps the step finite.
        weights = distances.clamp_min(scale * 1e-9).reciprocal()
        moved = weights @ points / weights.sum()
        shift = float((moved - median).norm())
        median = moved
        if shift <= tol * scale:
            break
    return median.to(x.dtype)


@torch.no_grad()
def total_variance(x: Tensor) -> float:
    """Mean over rows of `||x - mean||^2`, in float64: the denominator that makes a squared error an FVU."""
    x = x.double()
    return float((x - x.mean(0)).pow(2).sum(1).mean())


@torch.no_grad()
def upper_quantile(
    x: Tensor, W: Tensor, b: Tensor, fraction: float, *, enough: int = 128, block: int = 1 << 24
) -> Tensor:
    """`[n]` thresholds that a `fraction` of the entries of each column of `x @ W.T + b` exceed.

    The threshold lies halfway between the last value above it and the first below, so the count is
    `round(fraction * N)` of the rows used exactly (at least one, at most N - 1).

    Args:
        x: `[N, d]`, N >= 2. W: `[n, d]`. b: `[n]`.
        fraction: In (0, 1).
        enough: Rows beyond the first 4,096 are used, evenly spread, only as far as this many above the threshold need
            them.
        block: Pre-activations held at a time.
    """
    x = _sample(x, max(4096, math.ceil(enough / fraction)))
    n_rows = x.shape[0]
    above = min(max(round(fraction * n_rows), 1), n_rows - 1)
    step = max(1, block // n_rows)
    parts = []
    for first in range(0, W.shape[0], step):
        pre = torch.addmm(b[first : first + step].unsqueeze(1), W[first : first + step], x.T)
        parts.append(torch.topk(pre, above + 1, dim=1).values[:, -2:].mean(1))
    return torch.cat(parts)
