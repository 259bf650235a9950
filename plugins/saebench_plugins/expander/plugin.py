"""Expander: what it registers. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from saebench.api import ArchitectureSpec, Cost, Problem, Site, TrainDefaults, hookimpl
from saebench.nn.cost import at_least, fraction, k_fits, linear_cost, one_place


@dataclass(frozen=True)
class ExpanderConfig:
    """Expander.

    Attributes:
        d_sae: Number of latents.
        k: Latents kept for each token.
        degree: Coordinates that each latent reads and writes.
        mask_seed: Decides the mask, alone; the same for all init seeds, so that their decoders can be matched.
        b_dec_init: `geometric-median` as our other contenders start, or `zero` as in the paper's code.
        reaim_every: Fraction of the allotment between two checks for dead latents; None: never.
        reaim_below: A latent that fired fewer times than this since the last check is re-aimed.
        reaim_most: No re-aiming where more than this fraction of latents is dead.
    """

    d_sae: int
    k: int
    degree: int = 7
    mask_seed: int = 0
    b_dec_init: Literal["geometric-median", "zero"] = "geometric-median"
    reaim_every: float | None = 0.2
    reaim_below: int = 5
    reaim_most: float = 0.8


def check(config: ExpanderConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return tuple(_problems(config, site))


def _problems(config: ExpanderConfig, site: Site) -> Iterator[Problem]:
    yield from one_place(site)
    yield from at_least(config, 1, "d_sae", "degree", "reaim_below")
    yield from at_least(config, 0, "mask_seed")
    yield from k_fits(config)
    if config.degree > site.d_in:
        yield Problem("degree", f"got {config.degree} but d_in is {site.d_in}. Use degree <= d_in.")
    elif config.d_sae >= 1 and config.degree >= 1 and config.d_sae * config.degree < site.d_in:
        needed = -(-site.d_in // config.d_sae)
        yield Problem(
            "degree",
            f"got {config.degree}: {config.d_sae} latents of that degree cannot cover {site.d_in} coordinates. Use "
            f"degree >= {needed}.",
        )
    yield from fraction(config, "reaim_every", "reaim_most")


def cost(config: ExpanderConfig, site: Site) -> Cost:
    """Each latent costs its degree, not d_in."""
    values = config.d_sae * config.degree
    return linear_cost(
        site.d_in,
        config.d_sae,
        expected_l0=config.k,
        n_parameters=values + site.d_in + config.d_sae,
        buffer_bytes=4 * values + 4,
        encoder_width=config.degree,
        unit_rows=False,
    )


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """Expander."""
    return (
        ArchitectureSpec(
            name="expander",
            version="1",
            config=ExpanderConfig,
            build="saebench_plugins.expander.model:build",
            cost=cost,
            check=check,
            parent="optional",
            tags=frozenset({"signed_latents"}),
            train=TrainDefaults(lr=6e-3, clip=1.0),
            description="Tied TopK whose latents touch `degree` coordinates of a frozen random mask "
            "(Mendoza-Smith 2026)",
        ),
    )
