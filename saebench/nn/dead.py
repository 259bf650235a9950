"""Latents that do not fire: counting them, and the loss that brings them back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from saebench.api.codes import SparseCodes
from saebench.nn.selection import topk
from saebench.nn.sparse import decode


class DeadLatents(nn.Module):
    """Tokens since each latent last fired.

    A latent is dead when it has been silent for a fraction of the training allotment, so that the mechanism works at any
    budget (a fixed 10,000,000 tokens would never pass in a short run). The counter is training state: it is not part of
    the checkpoint.

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
        self.silent[codes.latents[codes.values != 0]] = 0

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


def draw_by_loss(losses: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """`[n]` token ids drawn with replacement, with probability proportional to `losses [B]` (uniform where all are zero)."""
    p = losses.detach().double().to(generator.device)
    if not float(p.sum()) > 0:
        p = torch.ones_like(p)
    return torch.multinomial(p, n, replacement=True, generator=generator).to(losses.device)
