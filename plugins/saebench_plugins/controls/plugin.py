"""Controls: what they are. Loads no torch. All are tagged `control`: no budget, never ranked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api import ArchitectureSpec, Cost, Problem, Site, hookimpl
from saebench.nn.cost import at_least, one_place


@dataclass(frozen=True)
class ControlConfig:
    """Sizes of a control.

    Attributes:
        d_sae: Number of latents. PCA has at most d_in; identity has d_in.
        k: Latents used for a token. The permuted decoder has its parent's, identity d_in.
    """

    d_sae: int
    k: int


def check(config: ControlConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site. The plan fills `k` from another entry, so a large one is no error: it is cut."""
    return [*one_place(site), *at_least(config, 1, "d_sae", "k")]


def _cost(n_latents: int, width: int, stored_values: int, expected_l0: float) -> Cost:
    return Cost(
        n_parameters=0,
        stored_bytes=4 * stored_values,
        train_flops_per_token=0,
        train_flops_per_active=0,
        step_flops=0,
        encode_flops_per_token=2 * n_latents * width,
        workspace_bytes_per_token=8 * n_latents + 16 * width,
        expected_l0=expected_l0,
    )


def cost_random(config: ControlConfig, site: Site) -> Cost:
    """Directions, a mean and a gain."""
    return _cost(config.d_sae, site.d_in, config.d_sae * site.d_in + site.d_in + 2, min(config.k, config.d_sae))


def cost_pca(config: ControlConfig, site: Site) -> Cost:
    """Components and a mean."""
    n = min(config.d_sae, site.d_in)
    return _cost(n, site.d_in, n * site.d_in + site.d_in + 1, min(config.k, n))


def cost_identity(config: ControlConfig, site: Site) -> Cost:
    """Nothing to compute."""
    return _cost(0, site.d_in, 1, site.d_in)


def cost_permuted(config: ControlConfig, site: Site, base_cost: Cost) -> Cost:
    """The parent's inference cost and a permutation."""
    return Cost(
        n_parameters=0,
        stored_bytes=base_cost.stored_bytes + 8 * config.d_sae + 4,
        train_flops_per_token=0,
        train_flops_per_active=0,
        step_flops=0,
        encode_flops_per_token=base_cost.encode_flops_per_token,
        workspace_bytes_per_token=base_cost.workspace_bytes_per_token,
        expected_l0=base_cost.expected_l0,
    )


def _spec(name: str, cost: Callable[..., Cost], description: str, **more: Any) -> ArchitectureSpec:
    tags = frozenset({"control", *more.pop("tags", ())})
    build = f"saebench_plugins.controls.model:build_{name.removeprefix('control-')}"
    return ArchitectureSpec(
        name=name,
        version="1",
        config=ControlConfig,
        build=build,
        cost=cost,
        check=check,
        tags=tags,
        description=description,
        **more,
    )


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """Two floors, a linear reference and a ceiling."""
    return (
        _spec("control-random", cost_random, "Floor: TopK over random directions with one fitted gain"),
        _spec(
            "control-permuted",
            cost_permuted,
            "Floor: the parent's codes decoded through shuffled rows",
            parent="required",
            wraps=True,
            tags=("shuffled_decoder",),
        ),
        _spec(
            "control-pca",
            cost_pca,
            "Linear reference: the k leading principal components",
            tags=("signed_latents",),
        ),
        _spec("control-identity", cost_identity, "Ceiling: x_hat = x", tags=("signed_latents", "raw_units")),
    )
