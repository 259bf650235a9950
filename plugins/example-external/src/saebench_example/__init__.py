"""A ReLU-L1 sparse autoencoder as a package of its own: what `saebench` needs to know of it. No torch here."""

from dataclasses import dataclass

from saebench.api import ArchitectureSpec, Cost, Problem, Site, hookimpl


@dataclass(frozen=True)
class Config:
    d_sae: int
    l1: float = 0.05


def check(config: Config, site: Site) -> list[Problem]:
    return [] if config.l1 > 0 else [Problem("l1", f"got {config.l1}, must be positive. Use about 0.05.")]


def cost(config: Config, site: Site) -> Cost:
    n, d = config.d_sae, site.d_in
    values = 2 * n * d + n + d
    return Cost(values, 4 * values, 12 * n * d, 0, 16 * values, 2 * n * d, 12 * n)


@hookimpl
def saebench_architectures() -> list[ArchitectureSpec]:
    return [
        ArchitectureSpec(
            "example-relu",
            "1",
            Config,
            "saebench_example.model:build",
            cost,
            check,
            description="ReLU with an L1 penalty",
        )
    ]
