"""SSAE: what it registers. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from saebench.api import ArchitectureSpec, Cost, Problem, Site, TrainDefaults, hookimpl

WEIGHT_FLOPS_PER_TOKEN = 8


@dataclass(frozen=True)
class SSAEConfig:
    """SSAE. Everything else comes from the entry named by `init_from`.

    Attributes:
        tilt: t of the tilted risk, in units of 1 / (loss / batch mean loss). 0 is ordinary training.
    """

    tilt: float = 1.0


def check(config: SSAEConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config."""
    if not math.isfinite(config.tilt) or config.tilt < 0:
        return (Problem("tilt", f"got {config.tilt}. Use a finite number, 0 or more."),)
    return ()


def cost(config: SSAEConfig, site: Site, base_cost: Cost) -> Cost:
    """The base's cost and a few operations a token for the weights."""
    return replace(base_cost, train_flops_per_token=base_cost.train_flops_per_token + WEIGHT_FLOPS_PER_TOKEN)


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """SSAE."""
    return (
        ArchitectureSpec(
            name="ssae",
            version="1",
            config=SSAEConfig,
            build="saebench_plugins.ssae.model:build",
            cost=cost,
            check=check,
            parent="required",
            wraps=True,
            train=TrainDefaults(lr=3e-4, clip=1.0),
            description="Fine-tunes a parent with the tilted (TERM) objective over any architecture "
            "(Muhamed et al. 2025)",
        ),
    )
