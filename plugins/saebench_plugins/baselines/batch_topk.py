"""BatchTopK SAE: the k * B largest rectified activations of a training batch; one threshold at inference."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, SparseCodes, StepInfo
from saebench.nn import (
    DeadLatents,
    LinearSAE,
    aux_k_loss,
    batch_topk,
    copy_parent,
    default_k_aux,
    linear_threshold,
    sparse_linear,
)
from saebench_plugins.baselines.plugin import BatchTopKConfig

SCALE_TOKENS = 4096
"""Tokens of the init sample that the encoder's scale is fitted on."""


class BatchTopK(LinearSAE):
    """BatchTopK SAE.

    Attributes:
        threshold: Scalar buffer; `encode` keeps pre-activations above it. Zero until `finalize` sets it.
    """

    threshold: Tensor

    def __init__(self, config: BatchTopKConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(d_in, config.d_sae, generator)
        self.config = config
        self.k_aux = config.k_aux or default_k_aux(d_in)
        self.dead = DeadLatents(config.d_sae, config.dead_window)
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias, loss scale, and an encoder of the right size."""
        if self.warm:
            return
        super().init_from_data(x, generator)
        self.fit_encoder_scale(x[:SCALE_TOKENS], self.encode_batch(x[:SCALE_TOKENS]))

    def encode(self, x: Tensor) -> SparseCodes:
        """Inference form: a token's codes depend on that token alone."""
        return linear_threshold(x - self.b_dec, self.W_enc, self.b_enc, self.threshold)

    def encode_batch(self, x: Tensor) -> SparseCodes:
        """Training form: the `k * B` largest rectified activations of the batch."""
        centred = x - self.b_dec
        with torch.no_grad():
            pre = functional.linear(centred, self.W_enc, self.b_enc)
            values, latents, offsets = batch_topk(pre.relu_(), self.config.k)
        codes = SparseCodes(values, latents, offsets, self.d_sae).nonzero()
        values = sparse_linear(centred, self.W_enc, self.b_enc, codes.values, codes.latents, codes.offsets)
        return SparseCodes(values, codes.latents, codes.offsets, self.d_sae)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token, and AuxK."""
        codes = self.encode_batch(batch.x)
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

    @torch.no_grad()
    def finalize(self, batches: Iterable[Tensor]) -> None:
        """The threshold: mean over batches of the smallest activation that batch-wise selection keeps, with the final weights."""
        smallest = [codes.values.min().double() for x in batches if (codes := self.encode_batch(x)).values.numel()]
        if smallest:
            # Selection keeps that smallest value itself and `encode` keeps what lies above: one step down.
            cut = torch.stack(smallest).mean().to(self.threshold.dtype)
            self.threshold.copy_(torch.nextafter(cut, torch.zeros_like(cut)))


def build(
    config: BatchTopKConfig,
    *,
    site: Site,
    generator: torch.Generator,
    init_from: nn.Module | None = None,
    base: nn.Module | None = None,
) -> BatchTopK:
    """A BatchTopK SAE, fresh or with a parent's weights."""
    sae = BatchTopK(config, site.d_in, generator)
    if init_from is not None:
        copy_parent(sae, init_from)
    return sae
