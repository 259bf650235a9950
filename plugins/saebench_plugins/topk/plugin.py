"""TopK: what it registers. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saebench.api import ArchitectureSpec, Cost, Problem, Site, TrainDefaults, hookimpl
from saebench.nn.cost import at_least, fraction, k_fits, linear_cost, not_negative, one_place


@dataclass(frozen=True)
class TopKConfig:
    """TopK.

    Attributes:
        d_sae: Number of latents.
        k: Latents kept for each token.
        k_aux: Dead latents used by AuxK; None: the power of two nearest to d_in / 2. Never more than are dead.
        aux_coefficient: Weight of AuxK; 0 turns it off.
        dead_window: A latent silent for this fraction of the token allotment is dead.
    """

    d_sae: int
    k: int
    k_aux: int | None = None
    aux_coefficient: float = 1 / 32
    dead_window: float = 0.05


def check(config: TopKConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return [
        *one_place(site),
        *at_least(config, 1, "d_sae", "k_aux"),
        *k_fits(config),
        *not_negative(config, "aux_coefficient"),
        *fraction(config, "dead_window"),
    ]


def cost(config: TopKConfig, site: Site) -> Cost:
    """Without AuxK, whose work depends on how many latents die; where half of them do, it adds about a third."""
    return linear_cost(site.d_in, config.d_sae, expected_l0=config.k)


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """TopK."""
    return (
        ArchitectureSpec(
            name="topk",
            version="1",
            config=TopKConfig,
            build="saebench_plugins.topk.model:build",
            cost=cost,
            check=check,
            parent="optional",
            train=TrainDefaults(lr=2e-3, clip=1.0),
            description="TopK with AuxK, tied init and unit decoder rows (Gao et al. 2024)",
        ),
    )
