"""TopK SAE. `f = ReLU(TopK(W_enc (x - b_dec) + b_enc))`, `x_hat = W_dec f + b_dec`, `L = FVU + aux_coefficient *
AuxK`."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench.api import Site, SparseCodes
from saebench.nn import AuxKSAE, Chosen, linear_select
from saebench_plugins.topk.plugin import TopKConfig


class TopK(AuxKSAE):
    """TopK SAE with AuxK."""

    def __init__(self, config: TopKConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__(
            d_in,
            config.d_sae,
            generator,
            k_aux=config.k_aux,
            aux_coefficient=config.aux_coefficient,
            dead_window=config.dead_window,
        )
        self.config = config

    def choose(self, x: Tensor, columns: Tensor | None) -> Chosen:
        """The k largest of each token."""
        found = linear_select(x, self.W_enc, self.b_enc, self.config.k, columns, self.workspace)
        codes = SparseCodes.from_topk(found.values.relu(), found.latents, self.d_sae)
        return Chosen(codes, found.columns, found.fallback_rows)

    def encode(self, x: Tensor) -> SparseCodes:
        """k entries a token, ReLU on the kept values."""
        return self.training_codes(x)


def build(config: TopKConfig, *, site: Site, generator: torch.Generator) -> TopK:
    """An untrained TopK SAE."""
    return TopK(config, site.d_in, generator)
