"""Entries crossed with sites, parents and sweep points: the contenders of a suite, parents first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from saebench.api.errors import PluginError, SuiteError
from saebench.api.specs import ArchitectureSpec
from saebench.base.near import hint
from saebench.cells.cell import Tune
from saebench.cells.labels import candidate_label, fitted, point_label
from saebench.config import EntryConfig, Problems, Suite, parse_options
from saebench.config.problems import Path, show
from saebench.host import Catalog, Registered
from saebench.plan.contenders.contender import Contender, field_names, read_architecture, train_settings
from saebench.plan.contenders.datasets import DatasetBook, DatasetPlan
from saebench.plan.contenders.refusals import Refusals
from saebench.plan.contenders.searches import config_values, read_tune
from saebench.plan.contenders.sites import SiteUse, dataset_site

CONTROL = "control"
"""Tag of the floor and ceiling rows that the harness adds by itself."""


def parents_first(entries: Sequence[EntryConfig]) -> list[int]:
    """Indices of the entries, each after the one it starts from, otherwise in the suite's order."""
    by_name = {entry.name: i for i, entry in enumerate(entries)}
    order: dict[int, None] = {}

    def visit(i: int) -> None:
        parent = entries[i].init_from
        if parent is not None and i not in order:
            visit(by_name[parent.entry])
        order[i] = None

    for i in range(len(entries)):
        visit(i)
    return list(order)


@dataclass(frozen=True)
class Expansion:
    """Makes the contenders of a suite's entries; every problem and refusal is added.

    Attributes:
        sites: Hookpoints of the suite's models.
        made: Contenders by entry, so far.
    """

    suite: Suite
    catalog: Catalog
    book: DatasetBook
    sites: Sequence[SiteUse]
    problems: Problems
    refusals: Refusals
    made: dict[str, list[Contender]] = field(default_factory=dict)

    def contenders(self) -> list[Contender]:
        """All of them, in an order in which parents come first."""
        for index in parents_first(self.suite.config.entries):
            entry = self.suite.config.entries[index]
            self.made[entry.name] = list(self._of_entry(index, entry))
        return [contender for made in self.made.values() for contender in made]

    def _of_entry(self, index: int, entry: EntryConfig) -> Iterator[Contender]:
        path: Path = ("entries", index)
        suite, problems = self.suite, self.problems
        try:
            registered = self.catalog.architecture(entry.architecture)
        except SuiteError as error:
            problems.take(error, (*path, "architecture"))
            return
        except PluginError as error:
            raise PluginError(f"{suite.where(*path, 'architecture')} entries[{index}].architecture: {error}") from error
        if CONTROL in registered.spec.tags:
            self.refusals.add(
                entry.name,
                (*path, "architecture"),
                f"architecture {registered.spec.name!r} has the tag {CONTROL!r}, which no entry may have. Write "
                "`controls: true` for saebench's own controls; take the tag out of the spec of any other architecture.",
            )
            return
        dataset = self.book.get(entry.dataset)
        if dataset is None or not self._parent_allowed(path, entry, registered.spec):
            return
        candidates = read_tune(path, entry, registered.spec, self.catalog, problems)
        if candidates is None:
            return
        label = f"entries[{index}].config"

        def where(key: str) -> str:
            block = "sweep" if key in entry.sweep else "tune" if entry.tune and key in entry.tune.grid else "config"
            return suite.where(*path, block, key) if key else suite.where(*path, "config")

        here = self._sites_of(path, entry, dataset)
        if not here and entry.init_from is None:
            # the hookpoints have problems of their own; names and types of this config are checked all the same
            for own, tune in _points(entry, candidates):
                try:
                    values = {**entry.config, **own, **config_values(_tried(tune))}
                    parse_options(registered.spec.config, values, where, label)
                except SuiteError as error:
                    problems.take(error)
        for site in here:
            for parent in self._parents(path, entry, site):
                if parent is not None and parent.architecture.base is not None:
                    problems.add(
                        (*path, "init_from"),
                        f"{parent.entry!r} is a wrapper ({parent.architecture.use.architecture}); "
                        "start from a plain entry, such as its own parent.",
                    )
                    return
                inherited = _inherited(registered, parent)
                for own, tune in _points(entry, candidates):
                    tried = _tried(tune)
                    point = _label(entry, own, tried, parent)
                    architecture = read_architecture(
                        registered, {**inherited, **entry.config, **own, **config_values(tried)},
                        site.site, parent, self.catalog, problems, where=where, label=label,
                    )  # fmt: skip
                    if architecture is None:
                        continue
                    yield Contender(
                        index=index,
                        entry=entry.name,
                        point=fitted(candidate_label(point, tried)),
                        sweep={**(parent.sweep if parent is not None else {}), **own},
                        where=suite.where(*path),
                        site=site,
                        dataset=dataset,
                        architecture=architecture,
                        train=train_settings(index, suite, architecture, tried, problems),
                        parent=parent,
                        tune=replace(tune, point=point) if tune is not None else None,
                    )

    def _parent_allowed(self, path: Path, entry: EntryConfig, spec: ArchitectureSpec) -> bool:
        if entry.init_from is None:
            if spec.parent == "required" or spec.wraps:
                self.problems.add(
                    path,
                    f"architecture {spec.name!r} starts from another entry. "
                    "Add `init_from:` with the name of that entry.",
                )
                return False
            return True
        if spec.parent == "none" and not spec.wraps:
            self.problems.add(
                (*path, "init_from"), f"architecture {spec.name!r} always starts fresh. Leave `init_from` out."
            )
            return False
        parent = entry.init_from.entry
        if not self.made.get(parent) and parent in self.refusals:
            self.refusals.orphan(entry.name, (*path, "init_from"), parent)
        return bool(self.made.get(parent))  # a parent without contenders has problems of its own, reported already

    def _sites_of(self, path: Path, entry: EntryConfig, dataset: DatasetPlan) -> Sequence[SiteUse]:
        """Where the entry reads; places where its data cannot be had are refused."""
        at = (*path, "dataset")
        if not dataset.on_model:
            if (reason := self.book.lacks_model(dataset.name)) is not None:
                self.refusals.add(entry.name, at, reason)
                return []
            if dataset.faults:  # how wide its vectors are is not known
                for fault, message in dataset.faults:
                    self.refusals.add(entry.name, fault, message)
                return []
            return [dataset_site(dataset)]
        if not self.suite.config.models:
            self.refusals.add(
                entry.name,
                at,
                f"{dataset.name!r} is {dataset.kind} and needs a language model, but the suite has none. Add "
                "`models:`.",
            )
        here = []
        for site in self.sites:
            if dataset.kind == "generated" and site.model and site.facts and not site.facts.causal:
                self.refusals.add(
                    entry.name,
                    at,
                    f"{dataset.name!r} samples the model, but {site.model.id} is no causal language model. Use a text "
                    "dataset.",
                )
            else:
                here.append(site)
        return here

    def _parents(self, path: Path, entry: EntryConfig, site: SiteUse) -> Sequence[Contender | None]:
        """The parent's contenders at this site, narrowed by `at`; `[None]` for an entry that starts fresh."""
        if entry.init_from is None:
            return [None]
        name, at = entry.init_from.entry, entry.init_from.at
        here = [contender for contender in self.made[name] if _same_place(contender.site, site)]
        if not here and name in self.refusals:
            self.refusals.orphan(entry.name, (*path, "init_from"), name)
            return []
        if not here:
            self.problems.add(
                (*path, "init_from"),
                f"{name!r} has no cell at {site.site.reads or site.key[-1]!r} (d_in {site.site.d_in}). "
                "Use a dataset on the same site.",
            )
            return []
        for key, value in at.items():
            swept = list(dict.fromkeys(key for contender in here for key in contender.sweep))
            if key not in swept:
                self.problems.add(
                    (*path, "init_from", "at", key), f"{name!r} has no sweep over {key!r}. {hint(key, swept)}"
                )
                return []
            if not any(contender.sweep.get(key) == value for contender in here):
                there = list(dict.fromkeys(show(one.sweep[key]) for one in here if key in one.sweep))
                self.problems.add(
                    (*path, "init_from", "at", key),
                    f"got {show(value)} but {name!r} has {', '.join(there)}. Use one of these.",
                )
                return []
        narrowed = [one for one in here if all(one.sweep.get(key) == value for key, value in at.items())]
        if not narrowed:
            points = ", ".join(dict.fromkeys(contender.point for contender in here))
            self.problems.add((*path, "init_from", "at"), f"{name!r} has no point {show(at)}. Its points: {points}.")
        return narrowed


def _points(entry: EntryConfig, candidates: Sequence[Tune | None]) -> Iterator[tuple[dict[str, Any], Tune | None]]:
    """Values of each operating point, with each candidate there (None without a search)."""
    for values in product(*entry.sweep.values()):
        for tune in candidates or [None]:
            yield dict(zip(entry.sweep, values, strict=True)), tune


def _tried(tune: Tune | None) -> Mapping[str, Any]:
    return tune.values if tune is not None else {}


def _same_place(parent: SiteUse, child: SiteUse) -> bool:
    if parent.model is None or child.model is None:
        return parent.model is child.model and parent.site.d_in == child.site.d_in
    return parent.key == child.key


def _inherited(registered: Registered[ArchitectureSpec], parent: Contender | None) -> dict[str, Any]:
    """The parent's config keys that a plain child takes over; a wrapper's base has them already."""
    if parent is None or registered.spec.wraps:
        return {}
    fields = field_names(registered.spec.config)
    return {key: value for key, value in parent.architecture.use.config.items() if key in fields}


def _label(entry: EntryConfig, own: Mapping[str, Any], tried: Mapping[str, Any], parent: Contender | None) -> str:
    """The point's name. A child that overrides what its parent swept names the parent's point too."""
    if parent is None:
        return point_label(own)
    if any(key in own or key in tried or key in entry.config for key in parent.sweep):
        return f"{point_label(own)}-from-{parent.point}"
    labels = (parent.point if parent.sweep else "", point_label(own) if own else "")
    return "-".join(filter(None, labels)) or "default"
