"""A plain TopK SAE, the honest base of every cheat here, and how to offer one. A cheat changes as little as it can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from saebench.api import ActivationBatch, ArchitectureSpec, Cost, LossTerms, Site, SparseCodes, StepInfo, hookimpl


@dataclass(frozen=True)
class Config:
    """Latents, and how many of them a token keeps."""

    d_sae: int
    k: int = 4


def honest_cost(config: Config, site: Site) -> Cost:
    """Six dense products a token, and Adam."""
    matrix = config.d_sae * site.d_in
    values = 2 * matrix + config.d_sae + site.d_in
    return Cost(values, 4 * values, 12 * matrix, 0, 15 * values, 2 * matrix, 16 * config.d_sae, config.k)


class TopK(nn.Module):
    """`f = TopK(ReLU(W_enc (x - b_dec) + b_enc))`, `x_hat = W_dec^T f + b_dec`, loss: squared error."""

    def __init__(self, config: Config, site: Site, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in, self.d_sae, self.k = site.d_in, config.d_sae, config.k
        rows = normalize(torch.randn(config.d_sae, site.d_in, generator=generator), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(config.d_sae)), nn.Parameter(torch.zeros(site.d_in))

    def honest_codes(self, x: Tensor) -> SparseCodes:
        """The k largest latents of each token."""
        found = ((x - self.b_dec) @ self.W_enc.T + self.b_enc).relu().topk(self.k, dim=1)
        return SparseCodes.from_topk(found.values, found.indices, self.d_sae)

    def honest_x_hat(self, codes: SparseCodes) -> Tensor:
        """The decoder."""
        return codes.to_dense().to(self.W_dec) @ self.W_dec + self.b_dec

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of `x [B, d_in]`."""
        return self.honest_codes(x)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        return self.honest_x_hat(codes)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """Squared error of each token. Codes and x_hat are not told: training holds them to what the module gives."""
        x_hat = self.honest_x_hat(self.honest_codes(batch.x))
        return LossTerms((batch.target - x_hat).square().mean(1))


def offer(
    name: str,
    make: Callable[..., nn.Module] = TopK,
    cost: Callable[[Config, Site], Cost] = honest_cost,
    version: str = "1",
    **spec: Any,
) -> Callable[[], list[ArchitectureSpec]]:
    """The hook of a plugin with one architecture; `make(config, site, generator)` builds its module."""

    def build(config: Config, *, site: Site, generator: torch.Generator) -> nn.Module:
        return make(config, site, generator)

    @hookimpl
    def saebench_architectures() -> list[ArchitectureSpec]:
        return [ArchitectureSpec(name, version, Config, build, cost, **spec)]

    return saebench_architectures
