"""Latents that do not fire: counting them, and the loss that brings them back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from saebench.api.codes import SparseCodes
from saebench.nn.cost import padded_size
from saebench.nn.kernels.autograd import decode
from saebench.nn.kernels.dense_topk import topk
from saebench.nn.kernels.screen import bits_of, scratch
from saebench.nn.kernels.surplus import surplus

AUX_BLOCK = 512
"""Tokens whose k-th largest are sought at once: they stay in the cache."""


class DeadLatents(nn.Module):
    """Tokens since each latent last fired.

    A latent is dead when it has been silent for a fraction of the training allotment, so that the mechanism works at
    any budget (a fixed 10,000,000 tokens would never pass in a short run). The counter is training state: it is not
    part of the checkpoint.

    Args:
        d_sae: Number of latents.
        window: Fraction of the allotment, in (0, 1].
    """

    silent: Tensor

    def __init__(self, d_sae: int, window: float) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("silent", torch.zeros(d_sae, dtype=torch.long), persistent=False)

    @torch.no_grad()
    def update(self, codes: SparseCodes) -> None:
        """Take the codes of one batch of training."""
        self.silent += codes.n_rows
        self.silent.masked_fill_(codes.firings() > 0, 0)

    def dead(self, tokens_allotted: int) -> Tensor:
        """`[m]` int64: the ids of dead latents, ascending."""
        return torch.nonzero(self.silent >= self.window * tokens_allotted).squeeze(1)


def default_k_aux(d_in: int) -> int:
    """The power of two nearest to `d_in / 2` (in ratio), at least 1 (Gao et al., section A.2)."""
    return 1 << max(0, round(math.log2(d_in / 2)))


def aux_k_loss(
    x: Tensor, residual: Tensor, dead: Tensor, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, k_aux: int
) -> Tensor:
    """AuxK (Gao et al. 2024, section A.2): how badly the dead latents explain the residual, as NMSE.

    `e_hat` decodes, without bias, the `k_aux` largest rectified pre-activations among dead latents;
    the loss is `mean ||e - e_hat||^2 / mean ||e - mean(e)||^2`, e detached. Work is done on the dead rows only.

    Args:
        x: `[B, d]`, what the encoder multiplies (bias already subtracted).
        residual: `[B, d]`, target minus reconstruction; detached here.
        dead: `[m]` ids.
        W_enc, b_enc, W_dec: `[d_sae, d]`, `[d_sae]`, `[d_sae, d]`.
        k_aux: At most m are used.

    Returns:
        A scalar; 0 without dead latents or where the residual does not vary.
    """
    residual = residual.detach()
    variance = (residual - residual.mean(0)).pow(2).sum(1).mean()
    if dead.numel() == 0 or not float(variance) > torch.finfo(residual.dtype).tiny:
        return residual.new_zeros(())
    pre = functional.linear(x, W_enc.index_select(0, dead), b_enc.index_select(0, dead))
    values, latents = topk(pre, min(k_aux, dead.numel()))
    codes = SparseCodes.from_topk(values.relu(), latents, dead.numel())
    e_hat = decode(codes, W_dec.index_select(0, dead))
    return (residual - e_hat).pow(2).sum(1).mean() / variance


def aux_k_flops(n_tokens: int, d: int, n_dead: int, k_aux: int) -> int:
    """Work that AuxK needs in one step: for each selected latent decode, its value gradient and two weight gradients.

    The pre-activations are entries of the encoder product, which the architecture's cost holds already.
    """
    return n_tokens * 4 * 2 * d * min(k_aux, n_dead)


def padded(dead: Tensor) -> Tensor:
    """`dead [m]` with its last id again and again, up to `padded_size`.

    Latents die one by one. With a new m at every step, each step's products would be shapes that no step had before:
    the matrix library compiles code for each (about 10 ms) and keeps it, and the allocator finds no hole of its size.
    A run of 8,192 latents grew by 6 MB a step.
    """
    m = dead.numel()
    return torch.cat([dead, dead[-1:].expand(padded_size(m) - m)]) if m else dead


@torch.no_grad()
@surplus()
def add_aux_k_gradients(
    sae: Any, x: Tensor, pre: Tensor, residual: Tensor, latents: Tensor, n_dead: int, k_aux: int, coefficient: float
) -> Tensor:
    """`coefficient * aux_k_loss(...)`; adds its gradient to those of W_enc, b_enc and W_dec.

    The gradient of b_dec follows from that of b_enc.

    Selected are many of few latents, so products with the dead rows alone, dense, cost least. They run in the precision
    of `pre` (the loss stays float32); entries equal to the k-th all count, which in bfloat16 are more than one now and
    then.

    Args:
        sae: A `LinearSAE` whose gradients are filled.
        pre: `[B, m]` pre-activations of `latents`; overwritten.
        latents: `[m]` ids of the dead latents, `padded`; the first `n_dead` of them count.
        x, residual, k_aux: As in `aux_k_loss`.
    """
    variance = (residual - residual.mean(0)).pow(2).sum(1).mean()
    if n_dead == 0 or not float(variance) > torch.finfo(residual.dtype).tiny:
        return residual.new_zeros(())
    W_dec, n_rows, low = sae.W_dec.index_select(0, latents).to(pre.dtype), len(x), pre.dtype
    pre[:, n_dead:] = 0  # where a code is zero its gradients are zero
    keep_largest_(pre, k_aux)
    left = residual - torch.mm(pre, W_dec)
    loss = coefficient * left.pow(2).sum(1).double().sum() / n_rows / variance
    gradients = left.mul_(-2 * coefficient / (n_rows * variance)).to(low)
    d_pre = torch.mm(
        gradients, W_dec.T, out=scratch("d_pre", tuple(pre.shape), low) if x.device.type == "cpu" else None
    )
    sae.W_dec.grad.index_add_(0, latents, torch.mm(pre.T, gradients).to(x.dtype))
    zero_where_zero_(d_pre, pre)
    sae.W_enc.grad.index_add_(0, latents, torch.mm(d_pre.T, x.to(low)).to(x.dtype))
    sae.b_enc.grad.index_add_(0, latents, d_pre.sum(0, dtype=x.dtype))
    return loss.to(x.dtype)


def keep_largest_(z: Tensor, k: int) -> None:
    """Rectifies `z [B, m]` in place and zeroes all but the k largest of each row; entries equal to the k-th stay."""
    m = z.shape[1]
    if z.device.type != "cpu":
        z.relu_()
        if k < m:
            z.mul_(z >= torch.topk(z, k, dim=1).values[:, -1:])
        return
    bits = bits_of(z).numpy()
    for start in range(0, len(z), AUX_BLOCK):
        own = bits[start : start + AUX_BLOCK]
        cut = np.partition(own, m - k, axis=1)[:, m - k : m - k + 1] if k < m else np.zeros((1, 1), own.dtype)
        np.multiply(own, own >= np.maximum(cut, 1), out=own)


def zero_where_zero_(values: Tensor, f: Tensor) -> None:
    """Sets `values` to zero in place where `f`, nowhere negative, is zero."""
    if values.device.type != "cpu":
        values.mul_(f > 0)
    else:
        bits = bits_of(values).numpy()
        np.multiply(bits, bits_of(f).numpy() > 0, out=bits)


def draw_by_loss(losses: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`[n]` token ids, sampled with replacement in proportion to `losses [B]` (uniformly where all are zero)."""
    p = losses.detach().double().to(generator.device)
    if not float(p.sum()) > 0:
        p = torch.ones_like(p)
    return torch.multinomial(p, n, replacement=True, generator=generator).to(losses.device)
