"""ReLU SAE with L1. `f = ReLU(W_enc (x - b_dec) + b_enc)`, `x_hat = W_dec f + b_dec`, `L = FVU + l1_coefficient *
L1`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, SparseCodes, StepInfo
from saebench.nn import (
    LinearSAE,
    draw_by_loss,
    fill_gradients,
    finish_bias_gradient,
    linear_above,
    linear_threshold,
    reconstruct,
    unit_rows_,
)
from saebench_plugins.baselines.plugin import ReLUL1Config

RESAMPLED_ENCODER_NORM = 0.2
"""Relative to the mean norm of alive encoder rows (Towards Monosemanticity)."""


SCALE_TOKENS = 4096
"""Tokens of the init sample that the encoder's scale is fitted on."""


class ReLUL1(LinearSAE):
    """ReLU SAE with an L1 penalty."""

    fired: Tensor

    def __init__(self, config: ReLUL1Config, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, config.d_sae, generator)
        self.config = config
        # Training state, not part of the checkpoint: who fired since the last resampling.
        self.register_buffer("fired", torch.zeros(config.d_sae, dtype=torch.bool), persistent=False)

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias, loss scale, and an encoder of the right size."""
        super().init_from_data(x, generator)
        self.fit_encoder_scale(x[:SCALE_TOKENS], self.encode(x[:SCALE_TOKENS]))

    def encode(self, x: Tensor) -> SparseCodes:
        """All positive pre-activations."""
        return linear_threshold(x - self.b_dec, self.W_enc, self.b_enc, 0.0)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token, and the mean L1 norm in units of the data's spread."""
        codes = self.encode(batch.x)
        x_hat = self.decode(codes)
        l1 = codes.values.sum() / batch.n_tokens / self.variance.sqrt()
        return LossTerms(
            self.reconstruction(x_hat, batch.target), {"l1": self.config.l1_coefficient * l1}, codes, x_hat
        )

    @torch.no_grad()
    def loss_and_grad(
        self, batch: ActivationBatch, step: StepInfo, token_weights: Callable[[Tensor], Tensor] | None = None
    ) -> LossTerms:
        """`training_loss` and its gradient by hand."""
        x = batch.x - self.b_dec
        found = linear_above(x, self.W_enc, self.b_enc, 0.0)
        codes = SparseCodes(found.values, found.latents, found.offsets, self.d_sae)
        made = reconstruct(self, codes, batch.target, token_weights)
        weight = self.config.l1_coefficient / batch.n_tokens / self.variance.sqrt()
        fill_gradients(self, x, codes, made.df + weight, made.g)
        finish_bias_gradient(self)
        return LossTerms(made.losses, {"l1": weight * codes.values.sum()}, codes, made.x_hat)

    @torch.no_grad()
    def after_step(self, after: AfterStep) -> None:
        """Resample the silent at the fractions asked for."""
        codes, x_hat = after.terms.codes, after.terms.x_hat
        if not self.config.resample_at or codes is None or x_hat is None:
            return
        self.fired[codes.latents] = True
        allotted, seen = after.step.tokens_allotted, after.step.tokens_seen
        if not any(seen < at * allotted <= seen + after.batch.n_tokens for at in self.config.resample_at):
            return
        silent = torch.nonzero(~self.fired).squeeze(1)
        if 0 < silent.numel() < self.d_sae:
            alive_norm = self.W_enc[self.fired].norm(dim=1).mean()
            tokens = draw_by_loss(after.terms.reconstruction.pow(2), silent.numel(), after.generator)
            aim = unit_rows_(after.batch.x[tokens] - self.b_dec)
            self.W_dec[silent] = aim
            self.W_enc[silent] = aim * (RESAMPLED_ENCODER_NORM * alive_norm)
            self.b_enc[silent] = 0.0
            for parameter in (self.W_enc, self.W_dec, self.b_enc):
                after.reset_moments(parameter, silent)
        self.fired.zero_()


def build(config: ReLUL1Config, *, site: Site, generator: torch.Generator) -> ReLUL1:
    """An untrained ReLU SAE."""
    return ReLUL1(config, site.d_in, generator)
