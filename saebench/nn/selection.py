"""Exact top-k with ties to the lowest index."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench.api.codes import SparseCodes


def topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row; equal entries go to the lowest index.

    `torch.topk` leaves open which of several equal entries it takes. Asking it for one entry more shows the rows where
    the k-th and the next value are equal; only those are decided again, by a stable sort. Latents come in ascending
    order, so that sums over them have one order whatever the back end did.

    Args:
        pre: `[B, n]` floats; NaN counts as the largest value.
        k: 0 <= k <= n.

    Returns:
        values `[B, k]` (differentiable) and latents `[B, k]` int64.
    """
    n = pre.shape[1]
    if not 0 <= k <= n:
        raise ValueError(f"topk: k must lie in [0, {n}], got {k}")
    with torch.no_grad():
        best, latents = torch.topk(pre, min(k + 1, n), dim=1)
        if 0 < k < n:
            tied = best[:, k - 1] == best[:, k]
            latents = latents[:, :k]
            if bool(tied.any()):
                latents = latents.clone()
                latents[tied] = torch.sort(pre[tied], dim=1, descending=True, stable=True).indices[:, :k]
        latents = latents[:, :k].sort(dim=1).values
    return pre.gather(1, latents), latents


def encode_topk(pre: Tensor, k: int) -> SparseCodes:
    """Codes of `topk(pre, k)`; signed values, no ReLU. `pre` may carry gradient (dense); see `linear_topk` for less."""
    values, latents = topk(pre, k)
    return SparseCodes.from_topk(values, latents, pre.shape[1])


def batch_topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k * B largest entries of the whole batch (BatchTopK, arXiv 2412.06410); ties to the earliest token and latent.

    Args:
        pre: `[B, n]`, already rectified where only positive entries may win.
        k: Mean number of entries a token.

    Returns:
        values `[k * B]`, latents `[k * B]`, offsets `[B + 1]`.
    """
    n_rows, n = pre.shape
    values, flat = topk(pre.reshape(1, -1), k * n_rows)
    rows = torch.div(flat[0], n, rounding_mode="floor")
    return values[0], flat[0] - rows * n, SparseCodes.offsets_from_rows(rows, n_rows)
