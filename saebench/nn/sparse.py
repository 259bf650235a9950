"""Products with sparse codes in which only active latents cost anything, forward and backward.

Legend: B tokens, n = d_sae latents, d coordinates, nnz active entries in rows order (see `SparseCodes`).

One kernel does all of it: `bag_sum`, a sum of weighted rows per bag, each bag summed by one thread in one order.

    decode               x_hat[b]  = sum_i  values[i] * W_dec[latents[i]]             bags are tokens
    its weight gradient  dW_dec[j] = sum_i  values[i] * dx_hat[rows[i]]               bags are latents (the transposed product)
    its value gradient   dvalues[i] = <dx_hat[rows[i]], W_dec[latents[i]]>            a dot product for each entry
    linear encode        values[i] = <x[rows[i]], W_enc[latents[i]]> + b_enc[latents[i]], the same three in other roles
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from saebench.api.codes import SparseCodes
from saebench.nn.selection import linear_select

with warnings.catch_warnings():
    # torch says once a process that CSR tensors are in beta; said here, it is not said in a user's run.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))


def bag_sum(matrix: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """`out[b] = sum over i in [offsets[b], offsets[b + 1]) of weights[i] * matrix[ids[i]]`. No gradient of its own.

    Args:
        matrix: `[m, d]`.
        ids: `[nnz]` int64 in `[0, m)`.
        offsets: `[B + 1]` int64.
        weights: `[nnz]`, of matrix's dtype.

    Returns:
        `[B, d]`.
    """
    if ids.numel() == 0:
        return matrix.new_zeros(offsets.numel() - 1, matrix.shape[1])
    return functional.embedding_bag(
        ids, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def _rows(offsets: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(offsets.numel() - 1, device=offsets.device), offsets.diff())


def by_latent(latents: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """`order [nnz]` that sorts entries by latent (stable, so by token inside a latent) and `offsets [d_sae + 1]`."""
    # Radix sort exists for 16-bit keys: several times faster than a sort of int64.
    keys = latents.to(torch.int16) if d_sae <= 32767 else latents.to(torch.int32)
    order = torch.sort(keys, stable=True).indices
    offsets = torch.zeros(d_sae + 1, dtype=torch.long, device=latents.device)
    offsets[1:] = torch.cumsum(torch.bincount(latents, minlength=d_sae), 0)
    return order, offsets


def _transposed(weights: Tensor, latents: Tensor, rows: Tensor, matrix: Tensor, d_sae: int) -> Tensor:
    """`[d_sae, d]`: for each latent the sum of `weights[i] * matrix[rows[i]]` over its entries."""
    order, offsets = by_latent(latents, d_sae)
    return bag_sum(matrix, rows[order], offsets, weights[order])


def _dots(left: Tensor, right: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
    """`[nnz]`: `<left[rows[i]], right[latents[i]]>`, without gathering rows (3 to 20 times faster than gather and sum)."""
    empty = torch.sparse_csr_tensor(
        offsets, latents, left.new_zeros(latents.numel()), (left.shape[0], right.shape[0]), check_invariants=False
    )
    product: Tensor = torch.sparse.sampled_addmm(empty, left, right.T, beta=0.0)
    return product.values()


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(values, W_dec, latents, offsets)
        return bag_sum(W_dec, latents, offsets, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        values, W_dec, latents, offsets = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_values = _dots(grad, W_dec, latents, offsets) if ctx.needs_input_grad[0] else None
        d_W = _transposed(values, latents, _rows(offsets), grad, W_dec.shape[0]) if ctx.needs_input_grad[1] else None
        return d_values, d_W, None, None


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor | None, values: Tensor, latents: Tensor, offsets: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, W, latents, offsets)
        return values.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, W, latents, offsets = ctx.saved_tensors
        grad = grads[0].contiguous()
        d_x = bag_sum(W, latents, offsets, grad) if ctx.needs_input_grad[0] else None
        d_W = _transposed(grad, latents, _rows(offsets), x, W.shape[0]) if ctx.needs_input_grad[1] else None
        d_b = W.new_zeros(W.shape[0]).index_add_(0, latents, grad) if ctx.needs_input_grad[2] else None
        return d_x, d_W, d_b, None, None, None


def decode(codes: SparseCodes, W_dec: Tensor, b_dec: Tensor | None = None) -> Tensor:
    """`x_hat = codes @ W_dec + b_dec`.

    Differentiable (once) in `codes.values`, `W_dec [d_sae, d]` and `b_dec [d]`. An entry whose value is zero still gets its
    gradient, as JumpReLU's thresholds need.

    Returns:
        `[B, d]`.
    """
    x_hat: Tensor = _Decode.apply(codes.values, W_dec, codes.latents, codes.offsets)  # type: ignore[no-untyped-call]
    return x_hat if b_dec is None else x_hat + b_dec


def sparse_linear(x: Tensor, W: Tensor, b: Tensor | None, values: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
    """Entries `values` of `x @ W.T + b`, with the gradient of just those entries.

    A selector looks at dense pre-activations without gradient; what it kept comes back through here. So the backward pass
    of an encoder costs its active latents alone, where autograd would multiply dense matrices of mostly zeros.

    Args:
        x: `[B, d]`. W: `[n, d]`. b: `[n]` or None.
        values: `[nnz]`, the entries as already computed.
        latents, offsets: Where they stand, as in `SparseCodes`.

    Returns:
        `[nnz]`, equal to `values`; differentiable (once) in x, W and b.
    """
    out: Tensor = _SparseLinear.apply(x, W, b, values, latents, offsets)  # type: ignore[no-untyped-call]
    return out


def linear_topk(x: Tensor, W_enc: Tensor, b_enc: Tensor | None, k: int) -> SparseCodes:
    """The k largest of `x @ W_enc.T + b_enc` for each token, signed; gradient for those alone.

    The set is that of the exact product: tokens whose k-th place the rounding of the product leaves open are decided in
    float64 (see `linear_select`). Ties go to the lowest index.
    """
    values, latents = linear_select(x, W_enc, b_enc, k)
    codes = SparseCodes.from_topk(values, latents, W_enc.shape[0])
    return SparseCodes(
        sparse_linear(x, W_enc, b_enc, codes.values, codes.latents, codes.offsets),
        codes.latents,
        codes.offsets,
        codes.d_sae,
    )


def linear_threshold(x: Tensor, W_enc: Tensor, b_enc: Tensor | None, threshold: Tensor | float) -> SparseCodes:
    """All entries of `x @ W_enc.T + b_enc` above `threshold` (scalar or `[n]`), as pre-activations; gradient for those alone."""
    with torch.no_grad():
        pre = functional.linear(x, W_enc, b_enc)
        rows, latents = torch.nonzero(pre > threshold, as_tuple=True)
        values, offsets = pre[rows, latents], SparseCodes.offsets_from_rows(rows, x.shape[0])
    return SparseCodes(sparse_linear(x, W_enc, b_enc, values, latents, offsets), latents, offsets, W_enc.shape[0])
