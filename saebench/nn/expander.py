"""Expander SAEs: every latent reads and writes `degree` coordinates, fixed by a seed (arXiv 2607.01799).

Legend: B tokens, n = d_sae latents, d = d_in coordinates, g = degree, nnz active entries.
Values `W [n, g]` and coordinates `coords [n, g]` (int32, ascending in a row) stand for the matrix
`D[j, coords[j, r]] = W[j, r]`, zero elsewhere. No parameter, gradient or moment of size n x d ever exists.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from saebench.api.codes import SparseCodes
from saebench.nn.sparse import bag_sum, by_latent

_U64 = NDArray[np.uint64]


class _Counter:
    """SplitMix64 in counter mode: draw i of a seed is a pure function of both, the same for ever and everywhere."""

    def __init__(self, seed: int) -> None:
        self.base = self._mix(np.array([seed & (2**64 - 1)], dtype=np.uint64))
        self.next = 0

    @staticmethod
    def _mix(z: _U64) -> _U64:
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))

    def below(self, bound: int, size: int) -> NDArray[np.int64]:
        """`size` integers in `[0, bound)`, uniform up to a bias of bound / 2^32."""
        counters = np.arange(self.next, self.next + size, dtype=np.uint64)
        self.next += size
        bits = self._mix(self.base + counters * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        return ((bits * np.uint64(bound)) >> np.uint64(32)).astype(np.int64)


def sample_mask(d_sae: int, d_in: int, degree: int, seed: int) -> Tensor:
    """A left-regular mask: each latent draws `degree` distinct coordinates uniformly, then no coordinate is left without a latent.

    Draws by Floyd's algorithm, vectorised over latents. A coordinate that nobody drew takes the place of an entry drawn
    uniformly among those whose coordinate occurs more than once; degrees of latents stay as they are.

    Args:
        degree: 1 <= degree <= d_in, and `d_sae * degree >= d_in`.
        seed: The mask is a function of it and the sizes alone: no library's random stream is involved.

    Returns:
        `[d_sae, degree]` int32, ascending in each row.
    """
    if not 1 <= degree <= d_in:
        raise ValueError(f"sample_mask: degree must lie in [1, {d_in}], got {degree}")
    if d_sae * degree < d_in:
        raise ValueError(f"sample_mask: {d_sae} latents of degree {degree} cannot cover {d_in} coordinates")
    draw = _Counter(seed)
    coords = np.empty((d_sae, degree), dtype=np.int64)
    for slot, last in enumerate(range(d_in - degree, d_in)):
        candidate = draw.below(last + 1, d_sae)
        taken = (coords[:, :slot] == candidate[:, None]).any(1)
        coords[:, slot] = np.where(taken, last, candidate)
    flat = coords.reshape(-1)
    counts = np.bincount(flat, minlength=d_in)
    for coordinate in np.flatnonzero(counts == 0):
        eligible = np.flatnonzero(counts[flat] > 1)
        entry = eligible[draw.below(len(eligible), 1)[0]]
        counts[flat[entry]] -= 1
        flat[entry] = coordinate
        counts[coordinate] = 1
    coords.sort(axis=1)
    return torch.from_numpy(coords.astype(np.int32))


def mask_digest(coords: Tensor) -> str:
    """SHA-256 (hex) of shape and coordinates: equal exactly where supports are equal."""
    array = coords.cpu().numpy().astype("<i4")
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).hexdigest()


def expander_dense(W: Tensor, coords: Tensor, d_in: int) -> Tensor:
    """The matrix `[n, d_in]` itself, for matching and tests."""
    return W.new_zeros(W.shape[0], d_in).scatter(1, coords.long(), W)


@torch.no_grad()
def expander_pre_acts(x: Tensor, W: Tensor, b: Tensor, coords: Tensor) -> Tensor:
    """`[B, n]` pre-activations `x @ D.T + b`, without gradient (see `expander_values`).

    Each latent sums `degree` rows of the transposed batch: `n * degree * B` multiply-adds where a dense product has `n * d * B`.
    """
    n, degree = W.shape
    offsets = torch.arange(0, n * degree + 1, degree, device=W.device)
    pre = bag_sum(x.T.contiguous(), coords.reshape(-1).long(), offsets, W.reshape(-1))
    return pre.T + b


def _flat_coordinates(coords: Tensor, latents: Tensor, offsets: Tensor, d_in: int) -> Tensor:
    """`[nnz, g]`: where each entry's coordinates stand in a flattened `[B, d_in]`."""
    rows = torch.repeat_interleave(torch.arange(offsets.numel() - 1, device=offsets.device), offsets.diff())
    return coords.index_select(0, latents).long() + (rows * d_in).unsqueeze(1)


def _spread(weights: Tensor, latents: Tensor, where: Tensor, W: Tensor, n_rows: int, d_in: int) -> Tensor:
    """`[B, d_in]`: sum of `weights[i] * D[latents[i]]` into each entry's row."""
    flat = W.new_zeros(n_rows * d_in)
    flat.index_add_(0, where.reshape(-1), (W.index_select(0, latents) * weights.unsqueeze(1)).reshape(-1))
    return flat.view(n_rows, d_in)


def _value_grad(weights: Tensor, latents: Tensor, gathered: Tensor, d_sae: int) -> Tensor:
    """`[n, g]`: for each latent the sum of `weights[i] * gathered[i]` over its entries."""
    order, offsets = by_latent(latents, d_sae)
    return bag_sum(gathered, order, offsets, weights[order])


class _ExpanderDecode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, W: Tensor, coords: Tensor, latents: Tensor, offsets: Tensor, d_in: int
    ) -> Tensor:
        ctx.save_for_backward(values, W, coords, latents, offsets)
        where = _flat_coordinates(coords, latents, offsets, d_in)
        return _spread(values, latents, where, W, offsets.numel() - 1, d_in)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        values, W, coords, latents, offsets = ctx.saved_tensors
        grad = grads[0].contiguous()
        gathered = grad.view(-1)[_flat_coordinates(coords, latents, offsets, grad.shape[1])]
        d_values = (gathered * W.index_select(0, latents)).sum(1) if ctx.needs_input_grad[0] else None
        d_W = _value_grad(values, latents, gathered, W.shape[0]) if ctx.needs_input_grad[1] else None
        return d_values, d_W, None, None, None, None


class _ExpanderValues(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor, coords: Tensor, values: Tensor, latents: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, W, coords, latents, offsets)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, W, coords, latents, offsets = ctx.saved_tensors
        grad = grads[0].contiguous()
        where = _flat_coordinates(coords, latents, offsets, x.shape[1])
        d_x = _spread(grad, latents, where, W, x.shape[0], x.shape[1]) if ctx.needs_input_grad[0] else None
        d_W = _value_grad(grad, latents, x.reshape(-1)[where], W.shape[0]) if ctx.needs_input_grad[1] else None
        d_b = W.new_zeros(W.shape[0]).index_add_(0, latents, grad) if ctx.needs_input_grad[2] else None
        return d_x, d_W, d_b, None, None, None, None


def expander_decode(codes: SparseCodes, W: Tensor, coords: Tensor, d_in: int) -> Tensor:
    """`[B, d_in]`: `codes @ D`, without bias. Differentiable (once) in `codes.values` and W."""
    out: Tensor = _ExpanderDecode.apply(codes.values, W, coords, codes.latents, codes.offsets, d_in)  # type: ignore[no-untyped-call]
    return out


def expander_values(x: Tensor, W: Tensor, b: Tensor, coords: Tensor, codes: SparseCodes) -> Tensor:
    """`codes.values` (entries of `expander_pre_acts`) with the gradient of just those entries in x, W and b."""
    out: Tensor = _ExpanderValues.apply(x, W, b, coords, codes.values, codes.latents, codes.offsets)  # type: ignore[no-untyped-call]
    return out
