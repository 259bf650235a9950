"""JumpReLU SAE. `z = W_enc (x - b_dec) + b_enc`, `f = z * H(z - theta)`, `x_hat = W_dec f + b_dec`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from saebench.api import ActivationBatch, Constraint, LossTerms, NonNegative, Site, SparseCodes, StepInfo
from saebench.nn import (
    LinearSAE,
    fill_gradients,
    finish_bias_gradient,
    jumprelu,
    linear_above,
    linear_threshold,
    reconstruct,
    upper_quantile,
)
from saebench.nn import step as heaviside
from saebench_plugins.jumprelu.plugin import JumpReLUConfig

THRESHOLD_FLOOR = 1e-3
"""Inputs have unit mean square a coordinate; a threshold at the floor is as good as a ReLU."""


SCALE_TOKENS = 4096
"""Tokens of the init sample that the encoder's scale is fitted on."""

THRESHOLD_BETAS = (0.9, 0.9)
"""Adam's for the thresholds. The penalty's gradient shrinks a hundredfold as L0 nears its target; a second moment that
remembers a thousand steps would freeze the thresholds for the rest of a short run."""


class JumpReLU(LinearSAE):
    """JumpReLU SAE.

    Attributes:
        theta: `[d_sae]` thresholds on the pre-activations.
        bandwidth: Scalar buffer, eps in units of the pre-activations.
    """

    bandwidth: Tensor

    def __init__(self, config: JumpReLUConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, config.d_sae, generator)
        self.config = config
        self.theta = nn.Parameter(torch.full((config.d_sae,), THRESHOLD_FLOOR))
        self.register_buffer("bandwidth", torch.tensor(config.bandwidth))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Thresholds at each latent's (1 - L0 / d_sae) quantile, so that training starts at the target L0."""
        super().init_from_data(x, generator)
        start = self.config.target_l0 or self.config.start_l0 or self.d_sae / 16
        theta = upper_quantile(x - self.b_dec, self.W_enc, self.b_enc, start / self.d_sae)
        self.theta.copy_(theta)
        scale = self.fit_encoder_scale(x[:SCALE_TOKENS], self.encode(x[:SCALE_TOKENS]))
        self.theta.copy_((theta * scale).clamp_min(THRESHOLD_FLOOR))
        # Rows of W_enc are vectors of norm `scale` in random directions: pre-activations spread as x does along one.
        self.bandwidth.fill_(self.config.bandwidth * scale * math.sqrt(float(self.variance) / self.d_in))

    def encode(self, x: Tensor) -> SparseCodes:
        """Latents above their thresholds."""
        return linear_threshold(x - self.b_dec, self.W_enc, self.b_enc, self.theta)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token and the L0 penalty.

        Entries inside the kernel but below their threshold come along as explicit zeros, so that thresholds get their
        gradient.
        """
        eps = float(self.bandwidth)
        pre = linear_threshold(batch.x - self.b_dec, self.W_enc, self.b_enc, self.theta - eps / 2)
        theta = self.theta[pre.latents]
        codes = replace(pre, values=jumprelu(pre.values, theta, eps))
        x_hat = self.decode(codes)
        l0 = heaviside(pre.values.detach(), theta, eps).sum() / batch.n_tokens
        penalty, _ = self._penalty(l0, step)
        return LossTerms(self.reconstruction(x_hat, batch.target), {"l0": penalty}, codes, x_hat)

    def _penalty(self, l0: Tensor, step: StepInfo) -> tuple[Tensor, Tensor]:
        """The penalty of a batch's mean L0, and its derivative."""
        strength = min(1.0, step.progress / self.config.penalty_warmup)
        if self.config.target_l0 is not None:
            off, weight = l0 / self.config.target_l0 - 1, strength * self.config.target_coefficient
            return weight * off.pow(2), 2 * weight / self.config.target_l0 * off
        weight = strength * (self.config.l0_coefficient or 0.0)
        return weight * l0, torch.full_like(l0, weight)

    @torch.no_grad()
    def loss_and_grad(
        self, batch: ActivationBatch, step: StepInfo, token_weights: Callable[[Tensor], Tensor] | None = None
    ) -> LossTerms:
        """`training_loss` and its gradient by hand."""
        eps = self.bandwidth  # a tensor: its value need not be waited for
        x = batch.x - self.b_dec
        pre = linear_above(x, self.W_enc, self.b_enc, self.theta - eps / 2)
        theta = self.theta[pre.latents]
        fired = pre.values > theta
        codes = SparseCodes(pre.values * fired, pre.latents, pre.offsets, self.d_sae)
        made = reconstruct(self, codes, batch.target, token_weights)
        order, offsets = fill_gradients(self, x, codes, made.df * fired, made.g)
        finish_bias_gradient(self)
        l0 = fired.sum().to(x.dtype) / batch.n_tokens
        penalty, slope = self._penalty(l0, step)
        kernel = ((pre.values - theta).abs() < eps / 2).to(x.dtype) / -eps
        d_theta = kernel * (theta * made.df + slope / batch.n_tokens)
        self.theta.grad = torch.segment_reduce(d_theta[order], "sum", offsets=offsets, initial=0.0)
        return LossTerms(made.losses, {"l0": penalty}, codes, made.x_hat)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Thresholds learn at a rate, and forget at a rate, of their own."""
        others = [parameter for name, parameter in self.named_parameters() if name != "theta"]
        thresholds = {"params": [self.theta], "lr": lr * self.config.threshold_lr, "betas": THRESHOLD_BETAS}
        return [{"params": others, "lr": lr}, thresholds]

    def constraints(self) -> dict[str, Constraint]:
        """Unit decoder rows, thresholds above the floor."""
        return {**super().constraints(), "theta": NonNegative(THRESHOLD_FLOOR)}


def build(config: JumpReLUConfig, *, site: Site, generator: torch.Generator) -> JumpReLU:
    """An untrained JumpReLU SAE."""
    return JumpReLU(config, site.d_in, generator)
