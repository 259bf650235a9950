"""Exact top-k of dense pre-activations, ties to the lowest index; also the plain twin of `linear_select`."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from saebench.api.codes import SparseCodes

SPARE = 16
"""Candidates beyond k that the reference decides a token among.

Where these do not reach below the rounding, all latents are looked at.
"""


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
    latents = _with_edge(pre, k)[0]
    return pre.gather(1, latents), latents


@torch.no_grad()
def _with_edge(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Latents `[B, k]` of `topk`, and `[B, 2]`: the smallest chosen and the largest other entry, if there is one."""
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


def encode_topk(pre: Tensor, k: int) -> SparseCodes:
    """Codes of `topk(pre, k)`; signed values, no ReLU. `pre` may carry gradient (dense); see `linear_topk` for less."""
    values, latents = topk(pre, k)
    return SparseCodes.from_topk(values, latents, pre.shape[1])


def batch_topk(pre: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The k * B largest entries of the whole batch (BatchTopK, arXiv 2412.06410).

    Ties go to the earliest token, then to the lowest latent.

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


@torch.no_grad()
def select_reference(x: Tensor, W: Tensor, b: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """What `linear_select` chooses, from the whole product and `torch.topk`: slow and obvious.

    Any device and float dtype.
    """
    pre = functional.linear(x, W, b)
    latents, edge = _with_edge(pre, k)
    if edge.numel() and pre.dtype != torch.float64:
        latents = _decided(x, W, b, pre, latents, edge)
    return pre.gather(1, latents), latents


def _decided(x: Tensor, W: Tensor, b: Tensor | None, pre: Tensor, latents: Tensor, edge: Tensor) -> Tensor:
    k, n = latents.shape[1], pre.shape[1]
    reach = reach_of(x, W, b)
    rows = torch.nonzero(edge[:, 0] - edge[:, 1] <= reach).squeeze(1)
    if rows.numel() == 0:
        return latents
    values, candidates = torch.topk(pre[rows], min(k + SPARE, n), dim=1)
    wide = values[:, -1] >= edge[rows, 0] - reach[rows]  # more are near than were asked for
    candidates = candidates.sort(dim=1).values  # so that a stable sort gives ties to the lowest index
    decided = latents.clone()
    few, many = rows[~wide], rows[wide]
    decided[few] = _best(x[few].unsqueeze(1), W, b, candidates[~wide], k)
    every = torch.arange(n, device=pre.device).unsqueeze(0)
    for row in many.tolist():
        decided[row] = _best(x[row], W, b, every, k)[0]
    return decided


def _best(x: Tensor, W: Tensor, b: Tensor | None, candidates: Tensor, k: int) -> Tensor:
    """`[m, k]`: the best of `candidates [m, c]` in float64, both ascending.

    Each product is summed by itself: a matrix product may round equal latents differently, depending on their places.
    """
    exact = (W[candidates].double() * x.double()).sum(2)
    if b is not None:
        exact += b[candidates].double()
    best = exact.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return candidates.gather(1, best).sort(dim=1).values


def reach_of(x: Tensor, W: Tensor, b: Tensor | None, norm: float | None = None) -> Tensor:
    """`[B]`: two entries of a row that lie further apart than this are in the right order.

    Args:
        norm: The largest norm of W's rows, where it is known.
    """
    d, numbers = x.shape[1], torch.finfo(x.dtype)
    lost = math.sqrt(d * numbers.tiny)  # squares and products below `tiny` may be lost
    largest = W.norm(dim=1).amax() if norm is None else norm
    size = (x.norm(dim=1) + lost) * (largest + lost) + (b.abs().amax() if b is not None else 0.0)
    reach: Tensor = 2.02 * (d + 2) * (numbers.eps / 2) * size + 4 * (d + 2) * numbers.tiny
    return reach


def linear_columns(x: Tensor, W: Tensor, b: Tensor | None, columns: Tensor | None) -> Tensor | None:
    """`[B, m]`: pre-activations of some latents alone."""
    if columns is None:
        return None
    return functional.linear(x, W.index_select(0, columns), b.index_select(0, columns) if b is not None else None)
