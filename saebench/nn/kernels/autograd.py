"""Products with sparse codes in which only active latents cost anything, forward and backward.

Legend: B tokens, n = d_sae latents, d coordinates, nnz active entries in rows order (see `SparseCodes`).

    decode               x_hat[b]  = sum_i  values[i] * W_dec[latents[i]]             bags are tokens
    its weight gradient  dW_dec[j] = sum_i  values[i] * dx_hat[rows[i]]               bags are latents
    its value gradient   dvalues[i] = <dx_hat[rows[i]], W_dec[latents[i]]>            a dot product for each entry
    linear encode        values[i] = <x[rows[i]], W_enc[latents[i]]> + b_enc[latents[i]], the same three in other roles
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saebench.api.codes import SparseCodes
from saebench.nn.kernels.above import linear_above
from saebench.nn.kernels.products import bag_sum, by_latent, entry_dots, transposed_product
from saebench.nn.kernels.select import linear_select


def _transposed(weights: Tensor, latents: Tensor, offsets: Tensor, matrix: Tensor, d_sae: int) -> Tensor:
    rows = SparseCodes.rows_of(offsets, latents.numel())
    order, of_latents = by_latent(latents, d_sae)
    return transposed_product(weights[order], rows[order], of_latents, matrix)


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
        d_values = entry_dots(grad, W_dec, latents, offsets) if ctx.needs_input_grad[0] else None
        d_W = _transposed(values, latents, offsets, grad, W_dec.shape[0]) if ctx.needs_input_grad[1] else None
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
        d_W = _transposed(grad, latents, offsets, x, W.shape[0]) if ctx.needs_input_grad[1] else None
        d_b = W.new_zeros(W.shape[0]).index_add_(0, latents, grad) if ctx.needs_input_grad[2] else None
        return d_x, d_W, d_b, None, None, None


def decode(codes: SparseCodes, W_dec: Tensor, b_dec: Tensor | None = None) -> Tensor:
    """`x_hat = codes @ W_dec + b_dec`.

    Differentiable (once) in `codes.values`, `W_dec [d_sae, d]` and `b_dec [d]`. An entry whose value is zero still gets
    its gradient, as JumpReLU's thresholds need.

    Returns:
        `[B, d]`.
    """
    x_hat: Tensor = _Decode.apply(codes.values, W_dec, codes.latents, codes.offsets)  # type: ignore[no-untyped-call]
    return x_hat if b_dec is None else x_hat + b_dec


def sparse_linear(x: Tensor, W: Tensor, b: Tensor | None, values: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
    """Entries `values` of `x @ W.T + b`, with the gradient of just those entries.

    A selector reads dense pre-activations without gradient. What it kept gets its gradient here. So the backward pass
    of an encoder costs its active latents alone, where autograd would multiply dense matrices of mostly zeros.

    Args:
        x: `[B, d]`. W: `[n, d]`. b: `[n]` or None.
        values: `[nnz]`, the entries as already computed.
        latents, offsets: Their places, as in `SparseCodes`.

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
    found = linear_select(x, W_enc, b_enc, k)
    codes = SparseCodes.from_topk(found.values, found.latents, W_enc.shape[0])
    return SparseCodes(
        sparse_linear(x, W_enc, b_enc, codes.values, codes.latents, codes.offsets),
        codes.latents,
        codes.offsets,
        codes.d_sae,
    )


def linear_threshold(x: Tensor, W_enc: Tensor, b_enc: Tensor | None, threshold: Tensor | float) -> SparseCodes:
    """The entries of `x @ W_enc.T + b_enc` above `threshold` (scalar or `[n]`); gradient for those alone."""
    found = linear_above(x.detach(), W_enc.detach(), None if b_enc is None else b_enc.detach(), _plain(threshold))
    values = sparse_linear(x, W_enc, b_enc, found.values, found.latents, found.offsets)
    return SparseCodes(values, found.latents, found.offsets, W_enc.shape[0])


def _plain(threshold: Tensor | float) -> Tensor | float:
    return threshold.detach() if isinstance(threshold, Tensor) else threshold
