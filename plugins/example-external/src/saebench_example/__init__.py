"""A ReLU-L1 sparse autoencoder as a package of its own: what `saebench` needs to know of it. No torch here."""

from dataclasses import dataclass

from saebench.api import ArchitectureSpec, Problem, Site, hookimpl


@dataclass(frozen=True)
class Config:
    d_sae: int
    l1: float = 0.05


def check(config: Config, site: Site) -> list[Problem]:
    return [] if config.l1 > 0 else [Problem("l1", f"got {config.l1}, must be positive. Use about 0.05.")]


@hookimpl
def saebench_architectures() -> list[ArchitectureSpec]:
    return [
        ArchitectureSpec(
            name="example-relu",
            version="1",
            config=Config,
            build="saebench_example.model:build",
            check=check,
            description="ReLU with an L1 penalty",
        )
    ]
