"""A contender: an entry (or control) at one site and one operating point, before seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from saebench.api.errors import PluginError, SuiteError
from saebench.api.specs import ArchitectureSpec, Cost, Site, TrainDefaults
from saebench.cells.cell import ArchitectureUse, TrainSettings, Tune
from saebench.config import Problems, Suite, TrainConfig, as_json, parse_options
from saebench.config.checks import LEARNING_RATE
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost, dry_build
from saebench.plan.contenders.datasets import DatasetPlan
from saebench.plan.contenders.plugin_calls import ask
from saebench.plan.contenders.sites import SiteUse

DEFAULT_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Architecture:
    """An architecture whose config was parsed and checked at a site.

    Attributes:
        registered: Its spec and where that comes from.
        use: As cells hold it.
        base: The one that it wraps.
        d_sae: Latents.
        cost: Stand-alone, the base included.
    """

    registered: Registered[ArchitectureSpec]
    use: ArchitectureUse
    base: Architecture | None
    d_sae: int
    cost: Cost

    @property
    def tags(self) -> frozenset[str]:
        """The spec's and its base's."""
        return self.registered.spec.tags | (self.base.tags if self.base is not None else frozenset())


@dataclass(frozen=True, eq=False)
class Contender:
    """All that cells of one entry, site and operating point share.

    Attributes:
        index: Of the entry in the suite; None for controls.
        entry, point, sweep: For people.
        where: File and line of the entry.
        site, dataset: What it trains on.
        architecture: What is trained.
        train: Settings with nothing left `auto`.
        parent: Contender whose weights it starts from.
        control: Never ranked: a floor or ceiling row, or a child's parent that was trained on.
        continued: Of controls: the latter.
        tune: Its place in a search, whose key is known once its cells are.
    """

    index: int | None
    entry: str
    point: str
    sweep: Mapping[str, Any]
    where: str
    site: SiteUse
    dataset: DatasetPlan
    architecture: Architecture
    train: TrainSettings
    parent: Contender | None = None
    control: bool = False
    continued: bool = False
    tune: Tune | None = None

    @property
    def title(self) -> str:
        """What messages call its entry: `entries[2] (topk)`."""
        return f"entries[{self.index}] ({self.entry})"

    @property
    def n_candidates(self) -> int:
        """How many divide its share."""
        return self.tune.n_candidates if self.tune is not None else 1

    @property
    def training_memory_bytes(self) -> int:
        """Memory of one training step, with weights, gradients and moments."""
        return self.architecture.cost.training_memory_bytes(self.train.batch)


def read_architecture(
    registered: Registered[ArchitectureSpec],
    values: Mapping[str, Any],
    site: Site,
    parent: Contender | None,
    catalog: Catalog,
    problems: Problems,
    *,
    where: Callable[[str], str],
    label: str,
    d_sae: int | None = None,
) -> Architecture | None:
    """Parses and checks a config; None after adding problems.

    Args:
        values: Config keys and values.
        parent: What it starts from, or wraps.
        where: File and line of a config key; of the config itself for "".
        label: What messages call the config: `entries[2].config`.
        d_sae: Latents where the config has no such field.

    Raises:
        PluginError: The architecture's own code failed.
    """
    spec = registered.spec
    try:
        config: Any = parse_options(spec.config, values, where, label)
    except SuiteError as error:
        problems.take(error)
        return None
    base = parent.architecture if parent is not None and spec.wraps else None
    d_sae = base.d_sae if base is not None else getattr(config, "d_sae", d_sae)
    if not isinstance(d_sae, int):
        raise PluginError(
            f"architecture '{spec.name}' of {registered.distribution}: its config needs a field `d_sae: int`."
        )
    found = list(ask(registered, "check", spec.check, config, site))
    for problem in found:
        key = f"{label}.{problem.key}" if problem.key else label
        problems.line(f"{where(problem.key)} {key}: {problem.message}")
    if parent is not None and d_sae != parent.architecture.d_sae:
        problems.line(
            f"{where('d_sae')} {label}.d_sae: got {d_sae} but its parent {parent.entry!r} has "
            f"{parent.architecture.d_sae}. Use the same d_sae as the parent."
        )
        return None
    if found:
        return None
    use = ArchitectureUse(spec.name, spec.version, as_json(config))
    cost = architecture_cost(use, base.use if base is not None else None, site, catalog)
    if spec.cost is not None:  # without one it was built to be counted
        dry_build(use, base.use if base is not None else None, site, catalog)
    return Architecture(registered, use, base, d_sae, cost)


def field_names(cls: type) -> frozenset[str]:
    """Names of the fields of a config dataclass."""
    return frozenset(field.name for field in dataclasses.fields(cls) if field.init)


def train_settings(
    index: int, suite: Suite, architecture: Architecture, tuned: Mapping[str, Any], problems: Problems
) -> TrainSettings:
    """Entry before suite before the architecture's defaults (`auto`); a learning rate that is tried before all."""
    entry, general = suite.config.entries[index].train, suite.config.train
    defaults: TrainDefaults = architecture.registered.spec.train

    def pick(key: str, auto: Any) -> Any:
        layer: TrainConfig = entry if key in entry.model_fields_set else general
        value = getattr(layer, key)
        return auto if value == "auto" else value

    lr = tuned.get(LEARNING_RATE)
    auto_lr = defaults.lr * sqrt(defaults.reference_width / architecture.d_sae)
    settings = TrainSettings(
        batch=pick("batch", DEFAULT_BATCH),
        lr=pick("lr", auto_lr) if lr is None else auto_lr if isinstance(lr, str) else float(lr),
        betas=pick("betas", tuple(defaults.betas)),
        eps=pick("eps", defaults.eps),
        clip=pick("clip", defaults.clip),
        warmup=pick("warmup", defaults.warmup),
        decay=pick("decay", defaults.decay),
        normalise=pick("normalise", "rms"),
        dtype=suite.config.activations.dtype,
        shuffle=suite.config.activations.shuffle,
    )
    if settings.warmup + settings.decay > 1:
        problems.add(
            ("entries", index, "train") if entry.model_fields_set else ("train",),
            f"warmup {settings.warmup:g} and decay {settings.decay:g} are fractions of the allotment and give more "
            "than 1.",
        )
    return settings
