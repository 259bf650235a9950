"""BatchTopK SAE: the k * B largest rectified activations of a training batch; one threshold at inference."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from saebench.api import Site, SparseCodes
from saebench.nn import AuxKSAE, Chosen, linear_batch_topk, linear_threshold
from saebench_plugins.baselines.plugin import BatchTopKConfig


class BatchTopK(AuxKSAE):
    """BatchTopK SAE.

    Attributes:
        threshold: Scalar buffer; `encode` keeps pre-activations above it. Zero until `finalize` sets it.
    """

    threshold: Tensor

    def __init__(self, config: BatchTopKConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(
            d_in,
            config.d_sae,
            generator,
            k_aux=config.k_aux,
            aux_coefficient=config.aux_coefficient,
            dead_window=config.dead_window,
        )
        self.config = config
        self.register_buffer("threshold", torch.tensor(0.0))

    def choose(self, x: Tensor, columns: Tensor | None) -> Chosen:
        """The `k * B` largest positive activations of the batch."""
        found = linear_batch_topk(x, self.W_enc, self.b_enc, self.config.k, columns)
        codes = SparseCodes(found.values, found.latents, found.offsets, self.d_sae)
        return Chosen(codes, found.columns, found.fallback_rows)

    def encode(self, x: Tensor) -> SparseCodes:
        """Inference form: a token's codes depend on that token alone."""
        return linear_threshold(x - self.b_dec, self.W_enc, self.b_enc, self.threshold)

    @torch.no_grad()
    def finalize(self, batches: Iterable[Tensor]) -> None:
        """The threshold: mean over batches of the smallest activation that batch-wise selection keeps, with the final
        weights."""
        smallest = [codes.values.min().double() for x in batches if (codes := self.training_codes(x)).values.numel()]
        if smallest:
            # Selection keeps that smallest value itself and `encode` keeps what lies above: one step down.
            cut = torch.stack(smallest).mean().to(self.threshold.dtype)
            self.threshold.copy_(torch.nextafter(cut, torch.zeros_like(cut)))


def build(config: BatchTopKConfig, *, site: Site, generator: torch.Generator) -> BatchTopK:
    """An untrained BatchTopK SAE."""
    return BatchTopK(config, site.d_in, generator)
