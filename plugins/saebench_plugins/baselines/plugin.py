"""Baselines: what they are. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saebench.api import ArchitectureSpec, Cost, Problem, Site, TrainDefaults, hookimpl
from saebench.nn.cost import at_least, fraction, k_fits, linear_cost, not_negative, one_place


@dataclass(frozen=True)
class ReLUL1Config:
    """ReLU with an L1 penalty.

    Attributes:
        d_sae: Number of latents.
        l1_coefficient: Weight of `mean sum |f| / sqrt(variance)`, beside a reconstruction loss that reads as FVU.
        resample_at: Fractions of the allotment at which silent latents are resampled; empty: never.
    """

    d_sae: int
    l1_coefficient: float = 0.1
    resample_at: tuple[float, ...] = ()


@dataclass(frozen=True)
class BatchTopKConfig:
    """BatchTopK.

    Attributes:
        d_sae: Number of latents.
        k: Mean number of latents kept for a token: a training batch of B tokens keeps its k * B largest activations.
        k_aux: Dead latents used by AuxK; None: the power of two nearest to d_in / 2. Never more than are dead.
        aux_coefficient: Weight of AuxK; 0 turns it off.
        dead_window: A latent silent for this fraction of the token allotment is dead.
    """

    d_sae: int
    k: int
    k_aux: int | None = None
    aux_coefficient: float = 1 / 32
    dead_window: float = 0.05


@dataclass(frozen=True)
class ExternalConfig:
    """An SAE that another library trained.

    Attributes:
        d_sae: Number of latents.
        k: Latents kept for a token; None: all above their thresholds.
        groups: Of each of `k` equal groups of latents the largest is kept.
        normalise: Of each token: `none`, `layer_norm` or `constant_norm`.
    """

    d_sae: int
    k: int | None = None
    groups: bool = False
    normalise: str = "none"


def check_external(config: ExternalConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return [*one_place(site), *at_least(config, 1, "d_sae", "k"), *(k_fits(config) if config.k is not None else ())]


def cost_external(config: ExternalConfig, site: Site) -> Cost:
    """Two matrices, two biases in, one bias out, thresholds."""
    d_in, d_sae = site.d_in, config.d_sae
    return linear_cost(
        d_in,
        d_sae,
        expected_l0=config.k,
        n_parameters=2 * d_in * d_sae + 2 * d_in + d_sae,
        buffer_bytes=4 * d_sae,
        unit_rows=False,
    )


def check_relu(config: ReLUL1Config, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return [
        *one_place(site),
        *at_least(config, 1, "d_sae"),
        *not_negative(config, "l1_coefficient"),
        *(
            Problem("resample_at", f"got {at}. Use fractions between 0 and 1.")
            for at in config.resample_at
            if not 0 < at < 1
        ),
    ]


def check_batch_topk(config: BatchTopKConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return [
        *one_place(site),
        *at_least(config, 1, "d_sae", "k_aux"),
        *k_fits(config),
        *not_negative(config, "aux_coefficient"),
        *fraction(config, "dead_window"),
    ]


def cost_relu(config: ReLUL1Config, site: Site) -> Cost:
    """L0 is what training makes it."""
    return linear_cost(site.d_in, config.d_sae, expected_l0=None)


def cost_batch_topk(config: BatchTopKConfig, site: Site) -> Cost:
    """As TopK, and one threshold."""
    return linear_cost(site.d_in, config.d_sae, expected_l0=config.k, buffer_bytes=8, blocked=False)


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """ReLU-L1, BatchTopK, and what other libraries trained."""
    return (
        ArchitectureSpec(
            name="relu-l1",
            version="1",
            config=ReLUL1Config,
            build="saebench_plugins.baselines.relu:build",
            cost=cost_relu,
            check=check_relu,
            parent="optional",
            train=TrainDefaults(lr=2e-3, clip=1.0),
            description="ReLU with L1 and unit decoder rows (Towards Monosemanticity, 2023)",
        ),
        ArchitectureSpec(
            name="batch-topk",
            version="1",
            config=BatchTopKConfig,
            build="saebench_plugins.baselines.batch_topk:build",
            cost=cost_batch_topk,
            check=check_batch_topk,
            parent="optional",
            train=TrainDefaults(lr=2e-3, clip=1.0),
            description="BatchTopK, scored in its threshold form (Bussmann et al. 2024)",
        ),
        ArchitectureSpec(
            name="external",
            version="1",
            config=ExternalConfig,
            build="saebench_plugins.baselines.external:build",
            cost=cost_external,
            check=check_external,
            parent="required",
            description="An SAE that another library trained, in one form for all of them",
        ),
    )
