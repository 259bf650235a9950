"""Expander SAEs: every latent reads and writes `degree` coordinates, fixed by a seed (arXiv 2607.01799).

Legend: B tokens, n = d_sae latents, d = d_in coordinates, g = degree, nnz active entries.
Values `W [n, g]` and coordinates `coords [n, g]` (int32, ascending in a row) describe the matrix
`D[j, coords[j, r]] = W[j, r]`, zero elsewhere. No parameter, gradient or moment of size n x d ever exists, and no
scratch.

    encode     z[:, b]    = D x[b] + b_enc                       bags are latents: g rows of the transposed batch
    select     the k largest of each column of z                 by maxima of groups, a block of tokens at a time
    decode     x_hat[b]   = sum_i  values[i] * D[latents[i]]     nnz * g terms summed into place, in order
    gradients  dW[j], db[j], dvalues[i]                          nnz * g terms gathered, bags are latents
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
from saebench.nn.kernels.dense_topk import topk
from saebench.nn.kernels.products import bag_sum, by_latent

GROUP = 8
"""Entries that share one maximum when the largest are sought."""

BLOCK = {"cpu": (2**24, 256)}
"""Bytes of pre-activations, and tokens, that are worked on at a time.

On the CPU both they and the transposed tokens stay in cache,
and below the 32 MiB from which glibc returns memory to the system at every free: touching it anew cost ten times the
products."""
_BLOCK_ELSEWHERE = (2**28, 2**13)

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
    """A left-regular mask: each latent has `degree` distinct random coordinates, each coordinate a latent at least.

    Draws by Floyd's algorithm, vectorised over latents. A coordinate without a latent replaces an entry chosen
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


def _pre_acts(x: Tensor, ids: Tensor, offsets: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """`[n, B]`: each latent sums `degree` rows of the transposed batch."""
    return bag_sum(x.T.contiguous(), ids, offsets, W.reshape(-1)).add_(b.unsqueeze(1))


def _bags(coords: Tensor) -> tuple[Tensor, Tensor]:
    n, degree = coords.shape
    return coords.reshape(-1).long(), torch.arange(0, n * degree + 1, degree, device=coords.device)


@torch.no_grad()
def expander_pre_acts(x: Tensor, W: Tensor, b: Tensor, coords: Tensor) -> Tensor:
    """`[B, n]` pre-activations `x @ D.T + b`, without gradient (see `expander_values`).

    `n * degree * B` multiply-adds where a dense product has `n * d * B`. For tests and small pictures: `expander_topk`
    keeps no more of them than a block of tokens at a time.
    """
    return _pre_acts(x, *_bags(coords), W, b).T


def _largest(z: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """The m largest entries of each column of `z [n, T]`: values and rows, both `[T, m]`, descending.

    Which of equal entries is taken is open.

    They are in the m groups of rows with the largest maxima: these hold m entries (their maxima) that no entry outside
    surpasses. So the maxima, an eighth of z, are searched first, in the same way.
    """
    n, n_columns = z.shape
    n_groups = n // GROUP
    if n_groups <= 2 * m:
        return torch.topk(z.T.contiguous(), m, dim=1)
    grouped = n_groups * GROUP
    groups = _largest(z[:grouped].view(n_groups, GROUP, n_columns).amax(1), m)[1]
    inside = torch.arange(GROUP, device=z.device)
    rows = (groups.unsqueeze(2) * GROUP + inside).view(n_columns, m * GROUP)
    if grouped < n:
        rows = torch.cat([rows, torch.arange(grouped, n, device=z.device).expand(n_columns, -1)], 1)
    values, at = torch.topk(_in_columns(z, rows), m, dim=1)
    return values, rows.gather(1, at)


def _in_columns(z: Tensor, rows: Tensor) -> Tensor:
    """`[T, c]`: entries `z[rows[t, i], t]` of `z [n, T]`."""
    n_columns = z.shape[1]
    flat = rows * n_columns + torch.arange(n_columns, device=z.device).unsqueeze(1)
    return z.reshape(-1).index_select(0, flat.reshape(-1)).view(rows.shape)


def _top_of_columns(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`topk(z.T, k)` of `z [n, T]`: the same values and latents, ties at the lowest latent."""
    n = z.shape[0]
    if not 0 < k < n:
        return topk(z.T, k)
    best, latents = _largest(z, k + 1)
    latents = latents[:, :k].sort(dim=1).values
    tied = best[:, k - 1] == best[:, k]
    if bool(tied.any()):
        latents[tied] = topk(z[:, tied].T, k)[1]
    return _in_columns(z, latents), latents


@torch.no_grad()
def expander_topk(x: Tensor, W: Tensor, b: Tensor, coords: Tensor, k: int) -> SparseCodes:
    """`encode_topk(expander_pre_acts(x, W, b, coords), k)`, bit for bit, without gradient (see `expander_values`).

    Works through blocks of tokens, so that no more than `BLOCK` allows of pre-activations exist at a time. Its entries
    are found by maxima of groups (`_largest`); tokens whose k-th and next entry are equal are decided by `topk`.

    Args:
        x: `[B, d]`. W: `[n, g]`. b: `[n]`. coords: `[n, g]`.
        k: 0 <= k <= n.
    """
    n, bags = W.shape[0], _bags(coords)
    size, tokens = BLOCK.get(x.device.type, _BLOCK_ELSEWHERE)
    fits = max(size // (n * x.element_size()), 16)
    tokens = min(tokens, 1 << (fits.bit_length() - 1))  # a power of two: whole vectors
    parts = [_top_of_columns(_pre_acts(block, *bags, W, b), k) for block in torch.split(x, tokens)]
    values, latents = (torch.cat(part) for part in zip(*parts, strict=True))
    return SparseCodes.from_topk(values, latents, n)


def _sums_at(where: Tensor, terms: Tensor, size: int) -> Tensor:
    """`[size]`: sums of the terms that fall on each place, in one order whatever the device."""
    out = terms.new_zeros(size)
    if out.device.type == "cpu":
        return out.index_add_(0, where.reshape(-1), terms.reshape(-1))
    return out.index_put_((where.reshape(-1),), terms.reshape(-1), accumulate=True)  # sorts; index_add_ would be atomic


def _flat_coordinates(coords: Tensor, latents: Tensor, offsets: Tensor, d_in: int) -> Tensor:
    """`[nnz, g]`: the places of each entry's coordinates in a flattened `[B, d_in]`."""
    rows = SparseCodes.rows_of(offsets, latents.numel())
    return coords.index_select(0, latents).long() + (rows * d_in).unsqueeze(1)


def _gathered(matrix: Tensor, where: Tensor) -> Tensor:
    return matrix.reshape(-1).index_select(0, where.reshape(-1)).view(where.shape)


def _spread(weights: Tensor, latents: Tensor, where: Tensor, W: Tensor, n_rows: int, d_in: int) -> Tensor:
    """`[B, d_in]`: sum of `weights[i] * D[latents[i]]` into each entry's row."""
    return _sums_at(where, W.index_select(0, latents) * weights.unsqueeze(1), n_rows * d_in).view(n_rows, d_in)


def _value_grad(weights: Tensor, latents: Tensor, gathered: Tensor, d_sae: int) -> Tensor:
    """`[n, g]`: for each latent the sum of `weights[i] * gathered[i]` over its entries."""
    order, offsets = by_latent(latents, d_sae)
    return bag_sum(gathered, order, offsets, weights[order])


@torch.no_grad()
def expander_gradients(
    d_x_hat: Tensor, x: Tensor, codes: SparseCodes, W: Tensor, coords: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients that autograd finds through `expander_decode` and `expander_values`, with everything shared once.

    Args:
        d_x_hat: `[B, d]`, gradient of the loss in the decoded batch.
        x: `[B, d]`, what was encoded. codes: What `expander_topk` made of it.

    Returns:
        Gradients in W `[n, g]`, in b `[n]`, and in a vector `[d]` added to every token of x.
    """
    n, d_in = W.shape[0], x.shape[1]
    where = _flat_coordinates(coords, codes.latents, codes.offsets, d_in)
    out, into = _gathered(d_x_hat, where), _gathered(x, where)
    d_values = (out * W.index_select(0, codes.latents)).sum(1)
    pieces = torch.addcmul(out * codes.values.unsqueeze(1), into, d_values.unsqueeze(1))
    order, offsets = by_latent(codes.latents, n)
    d_W = bag_sum(pieces, order, offsets, torch.ones_like(d_values))
    d_b = _sums_at(codes.latents, d_values, n)
    # A token's gradient is the sum of d_values[i] * D[latents[i]]; over all tokens, each latent's d_values are d_b.
    return d_W, d_b, _sums_at(coords.long(), W * d_b.unsqueeze(1), d_in)


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
        gathered = _gathered(grad, _flat_coordinates(coords, latents, offsets, grad.shape[1]))
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
        d_W = _value_grad(grad, latents, _gathered(x, where), W.shape[0]) if ctx.needs_input_grad[1] else None
        d_b = _sums_at(latents, grad, W.shape[0]) if ctx.needs_input_grad[2] else None
        return d_x, d_W, d_b, None, None, None, None


def expander_decode(codes: SparseCodes, W: Tensor, coords: Tensor, d_in: int) -> Tensor:
    """`[B, d_in]`: `codes @ D`, without bias. Differentiable (once) in `codes.values` and W."""
    out: Tensor = _ExpanderDecode.apply(codes.values, W, coords, codes.latents, codes.offsets, d_in)  # type: ignore[no-untyped-call]
    return out


def expander_values(x: Tensor, W: Tensor, b: Tensor, coords: Tensor, codes: SparseCodes) -> Tensor:
    """`codes.values` (entries of `expander_pre_acts`) with the gradient of just those entries in x, W and b."""
    out: Tensor = _ExpanderValues.apply(x, W, b, coords, codes.values, codes.latents, codes.offsets)  # type: ignore[no-untyped-call]
    return out
