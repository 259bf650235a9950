"""Exact top-k with ties to the lowest index."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from saebench.api.codes import SparseCodes

SPARE = 16
"""Candidates beyond k that a token is decided among; where even these do not reach below the rounding, all latents are."""


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
    latents = _select(pre, k)[0]
    return pre.gather(1, latents), latents


@torch.no_grad()
def _select(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Latents `[B, k]` as `topk` gives them, and `[B, 2]`: the smallest chosen and the largest other entry (empty if there is none)."""
    n = pre.shape[1]
    if not 0 <= k <= n:
        raise ValueError(f"topk: k must lie in [0, {n}], got {k}")
    best, latents = torch.topk(pre, min(k + 1, n), dim=1)
    edge = best[:, k - 1 :] if 0 < k < n else best[:, :0]
    if 0 < k < n:
        tied = edge[:, 0] == edge[:, 1]
        latents = latents[:, :k]
        if bool(tied.any()):
            latents = latents.clone()
            latents[tied] = torch.sort(pre[tied], dim=1, descending=True, stable=True).indices[:, :k]
    return latents[:, :k].sort(dim=1).values, edge


@torch.no_grad()
def linear_select(x: Tensor, W: Tensor, b: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k largest entries of each row of `x @ W.T + b`, decided in float64 where rounding leaves the k-th place open.

    The product carries an error of at most `(d + 2) u (||x|| max ||w|| + max |b|)` in any order of summation, u the unit
    roundoff of x's dtype (Higham 2002, section 3.1). Where the smallest chosen and the largest other entry lie closer than twice
    that (and one percent, for the rounding of the norms), the exact order of those within reach is found from products in float64.

    Args:
        x: `[B, d]`. W: `[n, d]`. b: `[n]` or None.
        k: 0 <= k <= n.

    Returns:
        values `[B, k]` in x's dtype, without gradient, and latents `[B, k]` int64, ascending; ties at the lowest index.
    """
    pre = functional.linear(x, W, b)
    latents, edge = _select(pre, k)
    if edge.numel() and pre.dtype != torch.float64:
        latents = _settle(x, W, b, pre, latents, edge)
    return pre.gather(1, latents), latents


def _settle(x: Tensor, W: Tensor, b: Tensor | None, pre: Tensor, latents: Tensor, edge: Tensor) -> Tensor:
    k, n = latents.shape[1], pre.shape[1]
    size = x.norm(dim=1) * W.norm(dim=1).amax() + (b.abs().amax() if b is not None else 0.0)
    reach = 2.02 * (x.shape[1] + 2) * (torch.finfo(pre.dtype).eps / 2) * size
    rows = torch.nonzero(edge[:, 0] - edge[:, 1] <= reach).squeeze(1)
    if rows.numel() == 0:
        return latents
    limit = edge[rows, 0] - reach[rows]
    values, candidates = torch.topk(pre[rows], min(k + SPARE, n), dim=1)
    if bool((values[:, -1] >= limit).any()):
        candidates = torch.arange(n, device=pre.device).expand(len(rows), n)
        exact = x[rows].double() @ W.double().T
    else:
        candidates = candidates.sort(dim=1).values  # so that the stable sort below gives ties to the lowest index
        exact = torch.bmm(W[candidates].double(), x[rows].double().unsqueeze(2)).squeeze(2)
    if b is not None:
        exact += b[candidates].double()
    best = exact.sort(dim=1, descending=True, stable=True).indices[:, :k]
    settled = latents.clone()
    settled[rows] = candidates.gather(1, best).sort(dim=1).values
    return settled


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
