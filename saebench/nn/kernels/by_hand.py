"""Gradients of an SAE with a linear encoder and decoder, written out.

Only active latents cost anything, and nothing large is allocated twice.

Legend: B tokens, n = d_sae latents, d coordinates, nnz active entries. With f the codes, z the pre-activations they
came from and `x_hat = f @ W_dec + b_dec`, `z = (x - b_dec) @ W_enc.T + b_enc`:

    g        = dL/dx_hat = 2 w (x_hat - target) / variance      w the tokens' weights, 1 / B without any
    df[i]    = <g[row i], W_dec[latent i]>
    dW_dec   = f^T g           dW_enc = dz^T (x - b_dec)         sums over the entries of each latent
    db_enc   = column sums of dz
    db_dec   = column sums of g - db_enc @ W_enc                 the second term is the bias inside the encoder
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saebench.api.codes import SparseCodes
from saebench.nn.kernels.products import bag_sum, by_latent, entry_dots, transposed_product


class Reconstructed(NamedTuple):
    """A batch decoded, with the gradient of its reconstruction loss."""

    x_hat: Tensor
    """`[B, d]`."""
    losses: Tensor
    """`[B]`: `||target - x_hat||^2 / variance`."""
    g: Tensor
    """`[B, d]`: gradient of the reduced loss with respect to x_hat."""
    df: Tensor
    """`[nnz]`: gradient with respect to the codes' values."""


def reconstruct(
    sae: Any, codes: SparseCodes, target: Tensor, token_weights: Callable[[Tensor], Tensor] | None
) -> Reconstructed:
    """Decodes, and differentiates the mean (or weighted sum) of the losses as far as the codes."""
    W_dec = sae.W_dec.detach()
    x_hat = bag_sum(W_dec, codes.latents, codes.offsets, codes.values).add_(sae.b_dec.detach())
    residual = x_hat - target
    losses = residual.pow(2).sum(1) / sae.variance
    if token_weights is None:
        g = residual.mul_(2 / (sae.variance * len(target)))
    else:
        g = residual.mul_((2 * token_weights(losses) / sae.variance).unsqueeze(1))
    return Reconstructed(x_hat, losses, g, entry_dots(g, W_dec, codes.latents, codes.offsets))


def fill_gradients(sae: Any, x: Tensor, codes: SparseCodes, dz: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Sets `.grad` of W_enc, b_enc, W_dec and b_dec; the last lacks the encoder's part until `finish_bias_gradient`.

    Args:
        sae: A `LinearSAE`.
        x: `[B, d]`, centred: what the encoder multiplied.
        codes: The codes f, without gradient.
        dz: `[nnz]`, gradient of their pre-activations.
        g: `[B, d]`, gradient of the reconstruction.

    Returns:
        `order [nnz]` and `offsets [n + 1]`: the entries latent by latent, for what else is summed that way.
    """
    order, offsets = by_latent(codes.latents, sae.d_sae)
    rows, dz = codes.rows()[order], dz[order]
    sae.W_dec.grad = transposed_product(codes.values[order], rows, offsets, g, kept(sae.W_dec))
    sae.W_enc.grad = transposed_product(dz, rows, offsets, x, kept(sae.W_enc))
    sae.b_enc.grad = torch.segment_reduce(dz, "sum", offsets=offsets, initial=0.0)
    sae.b_dec.grad = g.sum(0)
    return order, offsets


def finish_bias_gradient(sae: Any) -> None:
    """Takes the encoder's part off b_dec's gradient, once b_enc's is complete."""
    sae.b_dec.grad.sub_(sae.b_enc.grad @ sae.W_enc.detach())


def kept(parameter: Tensor) -> Tensor:
    """The parameter's gradient buffer of the last step, to be overwritten; made on first use."""
    return parameter.grad if parameter.grad is not None else torch.empty_like(parameter)
