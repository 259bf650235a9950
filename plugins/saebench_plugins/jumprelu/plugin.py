"""JumpReLU: what it registers. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saebench.api import ArchitectureSpec, Cost, Problem, Site, TrainDefaults, hookimpl
from saebench.nn.cost import at_least, fraction, linear_cost, one_place, positive


@dataclass(frozen=True)
class JumpReLUConfig:
    """JumpReLU. Give exactly one of `target_l0` and `l0_coefficient`.

    Attributes:
        d_sae: Number of latents.
        target_l0: Penalty `target_coefficient * (L0 / target_l0 - 1)^2`.
        l0_coefficient: Penalty `l0_coefficient * L0`, beside a reconstruction loss that reads as FVU.
        target_coefficient: Weight of the target form.
        penalty_warmup: Fraction of the allotment in which the penalty grows linearly from 0.
        start_l0: L0 that the thresholds start at with `l0_coefficient`; None: d_sae / 16. With `target_l0` it is the
            target.
        bandwidth: Width of the straight-through kernel, in standard deviations of the pre-activations at the start.
        threshold_lr: Learning rate of the thresholds, as a factor of the others'.
    """

    d_sae: int
    target_l0: float | None = None
    l0_coefficient: float | None = None
    target_coefficient: float = 3.0
    penalty_warmup: float = 0.05
    start_l0: float | None = None
    bandwidth: float = 0.25
    threshold_lr: float = 1.0


def check(config: JumpReLUConfig, site: Site) -> Sequence[Problem]:
    """Problems of a config at a site."""
    return tuple(_problems(config, site))


def _problems(config: JumpReLUConfig, site: Site) -> Iterator[Problem]:
    yield from one_place(site)
    yield from at_least(config, 2, "d_sae")
    if (config.target_l0 is None) == (config.l0_coefficient is None):
        found = "neither" if config.target_l0 is None else "both"
        yield Problem("target_l0", f"got {found} of target_l0 and l0_coefficient. Give exactly one.")
    for key in ("target_l0", "start_l0"):
        value = getattr(config, key)
        if value is not None and not 0 < value < config.d_sae:
            yield Problem(key, f"got {value} but d_sae is {config.d_sae}. Use a number above 0 and below d_sae.")
    yield from positive(config, "l0_coefficient", "target_coefficient", "bandwidth", "threshold_lr")
    yield from fraction(config, "penalty_warmup")


def cost(config: JumpReLUConfig, site: Site) -> Cost:
    """Active latents cost alone; those in the kernel's lower half are counted as active work by the meter's L0 only in
    part."""
    d_in, d_sae = site.d_in, config.d_sae
    return linear_cost(
        d_in, d_sae, expected_l0=config.target_l0, n_parameters=2 * d_in * d_sae + d_in + 2 * d_sae, buffer_bytes=8
    )


@hookimpl
def saebench_architectures() -> Sequence[ArchitectureSpec]:
    """JumpReLU."""
    return (
        ArchitectureSpec(
            name="jumprelu",
            version="1",
            config=JumpReLUConfig,
            build="saebench_plugins.jumprelu.model:build",
            cost=cost,
            check=check,
            parent="optional",
            train=TrainDefaults(lr=1.5e-3, clip=None),
            description="JumpReLU with straight-through thresholds, target-L0 or lambda form "
            "(Rajamanoharan et al. 2024)",
        ),
    )
