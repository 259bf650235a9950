"""TopK SAE. `f = ReLU(TopK(W_enc (x - b_dec) + b_enc))`, `x_hat = W_dec f + b_dec`, `L = FVU + aux_coefficient * AuxK`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, SparseCodes, StepInfo
from saebench.nn import DeadLatents, LinearSAE, aux_k_loss, copy_parent, default_k_aux, linear_topk
from saebench_plugins.topk.plugin import TopKConfig

SCALE_TOKENS = 4096
"""Tokens of the init sample that the encoder's scale is fitted on."""


class TopK(LinearSAE):
    """TopK SAE with AuxK."""

    def __init__(self, config: TopKConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, config.d_sae, generator)
        self.config = config
        self.k_aux = config.k_aux or default_k_aux(d_in)
        self.dead = DeadLatents(config.d_sae, config.dead_window)

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias, loss scale, and an encoder of the right size."""
        if self.warm:
            return
        super().init_from_data(x, generator)
        self.fit_encoder_scale(x[:SCALE_TOKENS], self.encode(x[:SCALE_TOKENS]))

    def encode(self, x: Tensor) -> SparseCodes:
        """k entries a token, ReLU on the kept values."""
        codes = linear_topk(x - self.b_dec, self.W_enc, self.b_enc, self.config.k)
        return replace(codes, values=codes.values.relu())

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token, and AuxK."""
        codes = self.encode(batch.x)
        x_hat = self.decode(codes)
        penalties = {}
        if self.config.aux_coefficient > 0:
            dead = self.dead.dead(step.tokens_allotted)
            aux = aux_k_loss(
                batch.x - self.b_dec, batch.target - x_hat, dead, self.W_enc, self.b_enc, self.W_dec, self.k_aux
            )
            penalties["aux"] = self.config.aux_coefficient * aux
        return LossTerms(self.reconstruction(x_hat, batch.target), penalties, codes, x_hat)

    def after_step(self, after: AfterStep) -> None:
        """Count who fired."""
        if after.terms.codes is not None:
            self.dead.update(after.terms.codes)


def build(
    config: TopKConfig,
    *,
    site: Site,
    generator: torch.Generator,
    init_from: nn.Module | None = None,
    base: nn.Module | None = None,
) -> TopK:
    """A TopK SAE, fresh or with a parent's weights."""
    sae = TopK(config, site.d_in, generator)
    if init_from is not None:
        copy_parent(sae, init_from)
    return sae
