"""A plugin for the section `memory`: an SAE that takes memory until there is none left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from saebench.api import ActivationBatch, ArchitectureSpec, Cost, LossTerms, Site, SparseCodes, hookimpl

TOO_MUCH = 1 << 50
A_STEP = 1 << 27
"""Bytes a step on a card: it comes to its limit step by step. A CPU has no limit of ours, so there it asks at once for
more than any machine has."""


@dataclass(frozen=True)
class Config:
    """What every architecture has."""

    d_sae: int


class Glutton(nn.Module):
    """A linear map that keeps memory with every step."""

    def __init__(self, config: Config, site: Site, generator: torch.Generator) -> None:
        super().__init__()
        self.d_in, self.d_sae = site.d_in, config.d_sae
        self.W = nn.Parameter(torch.randn(config.d_sae, site.d_in, generator=generator) / site.d_in)
        self.kept: list[torch.Tensor] = []

    def encode(self, x: torch.Tensor) -> SparseCodes:
        """Dense codes."""
        return SparseCodes.from_dense(x @ self.W.T)

    def decode(self, codes: SparseCodes) -> torch.Tensor:
        """Back by the same weights."""
        return codes.to_dense() @ self.W

    def training_loss(self, batch: ActivationBatch, step: Any) -> LossTerms:
        """Eats, then computes."""
        size = A_STEP if batch.x.is_cuda else TOO_MUCH
        self.kept.append(torch.empty(size, dtype=torch.uint8, device=batch.x.device))
        return LossTerms((batch.target - (batch.x @ self.W.T) @ self.W).square().sum(1))


def build(config: Config, *, site: Site, generator: torch.Generator) -> Glutton:
    """A glutton."""
    return Glutton(config, site, generator)


def cost(config: Config, site: Site) -> Cost:
    """What it claims to need: little."""
    n = config.d_sae * site.d_in
    return Cost(n, 4 * n, 12 * n, 4 * n, 10 * n, 0, 64, float(config.d_sae))


@hookimpl
def saebench_architectures() -> list[ArchitectureSpec]:
    """The glutton."""
    return [ArchitectureSpec("glutton", "1", Config, build, cost)]
