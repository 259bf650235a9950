"""Expander SAE. With D the masked, row-normalised values: `f = TopK(D (x - b_dec) + b_enc)` signed, `x_hat = D^T f +
b_dec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, SparseCodes, StepInfo
from saebench.nn import (
    draw_by_loss,
    expander_decode,
    expander_dense,
    expander_values,
    geometric_median,
    mask_digest,
    sample_mask,
    stored_bytes,
    total_variance,
)
from saebench.nn.expander import expander_gradients, expander_topk
from saebench_plugins.expander.plugin import ExpanderConfig

NORM_FLOOR = 1e-8
SEED_BYTES = 8


class Expander(nn.Module):
    """Expander SAE: `degree` values a latent are all that is stored, trained and moved.

    Attributes:
        V: `[d_sae, degree]` values; rows are normalised in every forward pass.
        coords: `[d_sae, degree]` int32, the frozen mask.
        b_enc: `[d_sae]`. b_dec: `[d_in]`.
        variance: Scalar buffer, the loss scale.
    """

    coords: Tensor
    variance: Tensor
    fired: Tensor

    def __init__(self, config: ExpanderConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.d_in, self.d_sae = config, d_in, config.d_sae
        self.register_buffer("coords", sample_mask(config.d_sae, d_in, config.degree, config.mask_seed))
        self.V = nn.Parameter(torch.randn(config.d_sae, config.degree, generator=generator) / config.degree**0.5)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(config.d_sae)), nn.Parameter(torch.zeros(d_in))
        self.register_buffer("variance", torch.tensor(float(d_in)))
        # Training state, not part of the checkpoint: how often each latent fired since the last check.
        self.register_buffer("fired", torch.zeros(config.d_sae, dtype=torch.long), persistent=False)

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias and loss scale."""
        if self.config.b_dec_init == "geometric-median":
            self.b_dec.copy_(geometric_median(x))
        self.variance.fill_(total_variance(x) or 1.0)

    def directions(self) -> Tensor:
        """`[d_sae, degree]`: V with rows of norm 1."""
        norms: Tensor = self.V.norm(dim=1, keepdim=True)
        return self.V / norms.clamp_min(NORM_FLOOR)

    def _encode(self, x: Tensor, W: Tensor) -> SparseCodes:
        centred = x - self.b_dec
        codes = expander_topk(centred, W, self.b_enc, self.coords, self.config.k)
        return replace(codes, values=expander_values(centred, W, self.b_enc, self.coords, codes))

    def _decode(self, codes: SparseCodes, W: Tensor) -> Tensor:
        return expander_decode(codes, W, self.coords, self.d_in) + self.b_dec

    def encode(self, x: Tensor) -> SparseCodes:
        """k entries a token, the largest signed values."""
        return self._encode(x, self.directions())

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return self._decode(codes, self.directions())

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token; nothing else."""
        W = self.directions()
        codes = self._encode(batch.x, W)
        x_hat = self._decode(codes, W)
        return LossTerms((batch.target - x_hat).pow(2).sum(1) / self.variance, {}, codes, x_hat)

    @torch.no_grad()
    def loss_and_grad(
        self, batch: ActivationBatch, step: StepInfo, token_weights: Callable[[Tensor], Tensor] | None = None
    ) -> LossTerms:
        """`training_loss` and the gradients of its mean (or of the sum under `token_weights`), without autograd."""
        W, centred = self.directions(), batch.x - self.b_dec
        codes = expander_topk(centred, W, self.b_enc, self.coords, self.config.k)
        x_hat = self._decode(codes, W)
        residual = x_hat - batch.target
        losses = residual.pow(2).sum(1) / self.variance
        if token_weights is None:
            d_x_hat = residual.mul_(2.0 / (self.variance * batch.n_tokens))
        else:
            d_x_hat = residual.mul_((token_weights(losses) * (2.0 / self.variance)).unsqueeze(1))
        d_W, self.b_enc.grad, d_centred = expander_gradients(d_x_hat, centred, codes, W, self.coords)
        self.b_dec.grad = d_x_hat.sum(0) - d_centred
        self.V.grad = self._through_norms(d_W, W)
        return LossTerms(losses, {}, codes, x_hat)

    def _through_norms(self, d_W: Tensor, W: Tensor) -> Tensor:
        """The gradient in V of what has gradient `d_W` in the directions: along a row nothing, but where the norm's
        floor holds."""
        norms = self.V.norm(dim=1, keepdim=True)
        along = (d_W * W).sum(1, keepdim=True).masked_fill_(norms < NORM_FLOOR, 0.0)
        return (d_W - along * W).div_(norms.clamp_min_(NORM_FLOOR))

    @torch.no_grad()
    def after_step(self, after: AfterStep) -> None:
        """Count who fired; at each `reaim_every` of the allotment aim the dead at tokens that are reconstructed
        badly."""
        codes, x_hat, every = after.terms.codes, after.terms.x_hat, self.config.reaim_every
        if every is None or codes is None or x_hat is None:
            return
        self.fired += codes.firings()
        window = every * after.step.tokens_allotted
        seen = after.step.tokens_seen
        if (
            seen + after.batch.n_tokens
        ) // window == seen // window or seen + after.batch.n_tokens >= after.step.tokens_allotted:
            return
        dead = torch.nonzero(self.fired < self.config.reaim_below).squeeze(1)
        self.fired.zero_()
        if 0 < dead.numel() <= self.config.reaim_most * self.d_sae:
            self._reaim(dead, after, after.batch.target - x_hat)

    def _reaim(self, dead: Tensor, after: AfterStep, residual: Tensor) -> None:
        tokens = draw_by_loss(residual.pow(2).sum(1), dead.numel(), after.generator)
        aim = residual[tokens].gather(1, self.coords[dead].long())
        self.V[dead] = aim / aim.norm(dim=1, keepdim=True).clamp_min(NORM_FLOOR)
        self.b_enc[dead] = 0.0
        after.reset_moments(self.V, dead)
        after.reset_moments(self.b_enc, dead)

    def decoder_directions(self) -> Tensor:
        """`[d_sae, d_in]`, dense: for matching."""
        return expander_dense(self.directions().detach(), self.coords, self.d_in)

    def encoder_directions(self) -> Tensor:
        """The same: encoder and decoder are tied."""
        return self.decoder_directions()

    def support_digest(self) -> str:
        """Digest of the mask."""
        return mask_digest(self.coords)

    def facts(self) -> dict[str, Any]:
        """What is learned and what is stored, in the three ways of counting."""
        with_ids = stored_bytes(self)
        return {
            "mask_seed": self.config.mask_seed,
            "degree": self.config.degree,
            "support_digest": self.support_digest(),
            "learned_values": sum(parameter.numel() for parameter in self.parameters()),
            "bytes_with_row_ids": with_ids,
            "bytes_with_seed": with_ids - self.coords.numel() * self.coords.element_size() + SEED_BYTES,
        }


def build(config: ExpanderConfig, *, site: Site, generator: torch.Generator) -> Expander:
    """An untrained Expander SAE."""
    return Expander(config, site.d_in, generator)
