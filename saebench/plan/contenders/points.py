"""An arm: an entry at one site and one operating point, before seeds. Its config is parsed and checked, its cost known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from saebench.api.errors import PluginError, SuiteError
from saebench.api.specs import ArchitectureSpec, Cost, TrainDefaults
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.config import Problems, Suite, TrainConfig, as_json, parse_options
from saebench.config.checks import LEARNING_RATE
from saebench.config.problems import Path
from saebench.host import Catalog, Registered
from saebench.host.build import architecture_cost
from saebench.plan.contenders.datasets import DatasetPlan
from saebench.plan.contenders.guard import ask
from saebench.plan.contenders.searches import Search
from saebench.plan.contenders.sites import SiteUse

DEFAULT_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Arm:
    """All that cells of one entry, site and operating point share.

    Attributes:
        index: Of the entry in the suite; None for controls.
        entry, point, sweep: For people.
        where: File and line of the entry.
        site, dataset: What it trains on.
        registered, part: The architecture; `base_registered`, `base`: the wrapped one.
        d_sae: Latents.
        train: Settings with nothing left `auto`.
        cost: Stand-alone, a wrapper's base included.
        parent: Arm whose weights it starts from.
        control: Floor or ceiling row.
        search, tuned: The search it is a candidate of, and the values it tries.
    """

    index: int | None
    entry: str
    point: str
    sweep: Mapping[str, Any]
    where: str
    site: SiteUse
    dataset: DatasetPlan
    registered: Registered[ArchitectureSpec]
    part: ArchitectureUse
    base_registered: Registered[ArchitectureSpec] | None
    base: ArchitectureUse | None
    d_sae: int
    train: TrainSettings
    cost: Cost
    parent: Arm | None = None
    control: bool = False
    search: Search | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_candidates(self) -> int:
        """How many divide its share."""
        return self.search.n_candidates if self.search is not None else 1

    @property
    def tags(self) -> tuple[str, ...]:
        """The spec's and its base's."""
        base = self.base_registered.spec.tags if self.base_registered is not None else frozenset()
        return tuple(sorted(self.registered.spec.tags | base))


@dataclass(frozen=True)
class Draft:
    """What `make_arm` needs to know of an entry (or control) at one point.

    Attributes:
        values: Config keys and values.
        key_path: Path of a config key, for messages; of the config itself for "".
        label: What messages call the config: `entries[2].config`.
        train: Settings of a control's reference arm; None: from the suite.
    """

    index: int | None
    entry: str
    point: str
    sweep: Mapping[str, Any]
    values: Mapping[str, Any]
    key_path: Callable[[str], Path]
    label: str
    site: SiteUse
    dataset: DatasetPlan
    registered: Registered[ArchitectureSpec]
    parent: Arm | None = None
    train: TrainSettings | None = None
    control: bool = False
    search: Search | None = None
    tuned: Mapping[str, Any] = field(default_factory=dict)


def make_arm(draft: Draft, suite: Suite, catalog: Catalog, problems: Problems) -> Arm | None:
    """Parses and checks; None after adding problems.

    Raises:
        PluginError: The architecture's own code failed.
    """

    def where(key: str) -> str:
        return suite.where(*draft.key_path(key))

    spec, site = draft.registered.spec, draft.site.site
    try:
        config: Any = parse_options(spec.config, draft.values, where, draft.label)
    except SuiteError as error:
        problems.take(error)
        return None
    wrapped = draft.parent if spec.wraps else None
    d_sae = wrapped.d_sae if wrapped is not None else getattr(config, "d_sae", site.d_in if draft.control else None)
    if not isinstance(d_sae, int):
        raise PluginError(
            f"architecture '{spec.name}' of {draft.registered.distribution}: its config needs a field `d_sae: int`."
        )
    found = list(ask(draft.registered, "check", spec.check, config, site))
    for problem in found:
        label = f"{draft.label}.{problem.key}" if problem.key else draft.label
        problems.line(f"{where(problem.key)} {label}: {problem.message}")
    if draft.parent is not None and wrapped is None and d_sae != draft.parent.d_sae:
        problems.line(
            f"{where('d_sae')} {draft.label}.d_sae: got {d_sae} but its parent {draft.parent.entry!r} has {draft.parent.d_sae}. Use the same d_sae as the parent."
        )
        return None
    if found:
        return None
    part = ArchitectureUse(spec.name, spec.version, as_json(config))
    base = wrapped.part if wrapped is not None else None
    lr = draft.tuned.get(LEARNING_RATE)
    settings = draft.train or _train_settings(draft.index or 0, suite, spec.train, d_sae, lr, problems)
    return Arm(
        index=draft.index,
        entry=draft.entry,
        point=draft.point,
        sweep=draft.sweep,
        where=suite.where(*draft.key_path("")[:2]),
        site=draft.site,
        dataset=draft.dataset,
        registered=draft.registered,
        part=part,
        base_registered=wrapped.registered if wrapped is not None else None,
        base=base,
        d_sae=d_sae,
        train=settings,
        cost=architecture_cost(part, base, site, catalog),
        parent=draft.parent,
        control=draft.control,
        search=draft.search,
        tuned=draft.tuned,
    )


def field_names(cls: type) -> frozenset[str]:
    """Names of the fields of a config dataclass."""
    return frozenset(field.name for field in dataclasses.fields(cls) if field.init)


def _train_settings(
    index: int, suite: Suite, defaults: TrainDefaults, d_sae: int, lr: float | str | None, problems: Problems
) -> TrainSettings:
    """Entry before suite before the architecture's defaults (`auto`); a learning rate that is tried before all."""
    entry, general = suite.config.entries[index].train, suite.config.train

    def pick(key: str, auto: Any) -> Any:
        layer: TrainConfig = entry if key in entry.model_fields_set else general
        value = getattr(layer, key)
        return auto if value == "auto" else value

    auto_lr = defaults.lr * sqrt(defaults.reference_width / d_sae)
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
            f"warmup {settings.warmup:g} and decay {settings.decay:g} are fractions of the allotment and give more than 1.",
        )
    return settings
