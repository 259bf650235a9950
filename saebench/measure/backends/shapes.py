"""The sizes at which back ends are compared: given ones, or those of a plan. Loads no torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from saebench.api.errors import SuiteError
from saebench.api.specs import Cost, Site
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.cells.plan import Plan
from saebench.config import as_json, parse_options
from saebench.host import Catalog
from saebench.host.build import architecture_cost
from saebench.plan.grouping.memory_batches import FREE_SHARE, memory_limit
from saebench.plan.print import format_bytes

REFERENCE = {"d_in": 512, "d_sae": 8192, "k": 32, "batch": 2048}
LARGE = {"d_in": 768, "d_sae": 24576, "k": 32, "batch": 4096}
SPARSITY = ("k", "target_l0")
"""Config keys that `k` may mean, the first that an architecture has."""


@dataclass(frozen=True)
class Shape:
    """One size at which back ends are compared.

    Attributes:
        part: Architecture with its config.
        d_in, d_sae: Sizes.
        l0: Active latents a token that the config aims at, or None.
        train: Batch and optimiser.
        cost: Of the architecture at this size.
    """

    part: ArchitectureUse
    d_in: int
    d_sae: int
    l0: float | None
    train: TrainSettings
    cost: Cost

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for shapes that are measured once."""
        return (self.part.architecture, self.d_in, self.d_sae, self.l0, self.train.batch)

    @property
    def title(self) -> str:
        """For people."""
        l0 = "" if self.l0 is None else f", L0 {self.l0:g}"
        return f"{self.part.architecture}, d_in {self.d_in}, d_sae {self.d_sae}{l0}, batch {self.train.batch}"

    @property
    def step_flops(self) -> float:
        """Of one step, roughly."""
        active = (self.l0 or 0) * self.cost.train_flops_per_active
        return self.train.batch * (self.cost.train_flops_per_token + active) + self.cost.step_flops


def shape_of(
    catalog: Catalog,
    architecture: str,
    *,
    d_in: int,
    d_sae: int,
    k: int | None,
    batch: int,
    sparsity_asked: bool = True,
) -> Shape:
    """A shape by its sizes, all else as the architecture's defaults have it.

    Args:
        k: Active latents a token: the config's `k` or `target_l0`.
        sparsity_asked: False where `k` is a default of ours: left out for an architecture that has neither.

    Raises:
        SuiteError: The architecture is unknown or cannot be measured alone, or refuses the sizes.
    """
    if architecture not in catalog.architectures:
        known = sorted(
            name for name, registered in catalog.architectures.items() if "control" not in registered.spec.tags
        )
        raise SuiteError(f"--architecture {architecture}: no such architecture. Known: {', '.join(known)}.")
    spec = catalog.architecture(architecture).spec
    if spec.wraps or spec.parent == "required" or "control" in spec.tags:
        why = (
            "takes no training step"
            if "control" in spec.tags
            else "starts from another architecture, and steps as that one does"
        )
        raise SuiteError(f"--architecture {architecture}: {why}. Name another one.")
    fields = {field.name for field in dataclasses.fields(spec.config)}
    values: dict[str, Any] = {"d_sae": d_sae}
    key = next((name for name in SPARSITY if name in fields), None)
    if k is not None and key is not None:
        values[key] = k
    elif k is not None and sparsity_asked:
        raise SuiteError(f"--k {k}: architecture '{architecture}' has neither `k` nor `target_l0`. Leave --k out.")

    def option(name: str) -> str:
        return "--k" if name in SPARSITY else f"--{name.replace('_', '-')}"

    config: Any = parse_options(spec.config, values, lambda name: "bench-backends:", architecture)
    site = Site(d_in, d_in, "bench", "bench")
    problems = [f"{option(problem.key)} {problem.message}" for problem in spec.check(config, site)]
    if problems:
        raise SuiteError("\n".join(problems))
    part = ArchitectureUse(architecture, spec.version, as_json(config))
    auto = spec.train
    train = TrainSettings(
        batch=batch, lr=auto.lr * (auto.reference_width / d_sae) ** 0.5, betas=auto.betas, eps=auto.eps, clip=auto.clip,
        warmup=auto.warmup, decay=auto.decay, normalise="rms",
    )  # fmt: skip
    cost = architecture_cost(part, None, site, catalog)
    return Shape(part, d_in, d_sae, cost.expected_l0, train, cost)


def shapes_of_plan(plan: Plan, catalog: Catalog) -> list[Shape]:
    """The distinct shapes of a plan's cells; a wrapper steps as what it wraps, controls take no step."""
    found: dict[tuple[Any, ...], Shape] = {}
    for cell in plan.cells:
        if not cell.trains:
            continue
        part = cell.base or cell.part
        cost = architecture_cost(part, None, cell.site, catalog)
        shape = Shape(part, cell.d_in, cell.d_sae, cost.expected_l0, cell.train, cost)
        found.setdefault(shape.key, shape)
    return list(found.values())


def refusal(shape: Shape, n_backends: int, device: str) -> str | None:
    """Why memory cannot hold the shape; None where it can."""
    own = shape.cost.training_memory_bytes(shape.train.batch)
    result = 4 * shape.train.batch * shape.d_sae
    free = memory_limit(device, None) / FREE_SHARE
    if n_backends * own + result <= free:
        return None
    hint = " Measure one back end at a time (--backend)," if n_backends > 1 and own + result <= free else ""
    return (
        f"{shape.title}: training needs {format_bytes(own)} of memory, for each of {n_backends} back ends side by "
        f"side, and a product {format_bytes(result)}; "
        f"{format_bytes(int(free))} are free.{hint or ' Use'}{' or use' if hint else ''} a smaller d_sae or batch."
    )
