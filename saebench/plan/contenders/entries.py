"""Entries crossed with sites, parents and sweep points: the arms of a suite, parents first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from saebench.api.errors import PluginError, SuiteError
from saebench.api.specs import ArchitectureSpec
from saebench.base.near import hint
from saebench.cells.labels import candidate_label, fitted, point_label
from saebench.config import EntryConfig, Problems, Suite, parse_options
from saebench.config.problems import Path, show
from saebench.host import Catalog, Registered
from saebench.plan.contenders.datasets import DatasetBook, DatasetPlan
from saebench.plan.contenders.points import Arm, Draft, field_names, make_arm
from saebench.plan.contenders.refusals import Refusals
from saebench.plan.contenders.searches import Search, Trials, config_values, read_tune
from saebench.plan.contenders.sites import SiteUse, dataset_site


def expand(
    suite: Suite,
    catalog: Catalog,
    book: DatasetBook,
    sites: Sequence[SiteUse],
    problems: Problems,
    refusals: Refusals,
) -> list[Arm]:
    """All arms of the suite's entries in an order in which parents come first; every problem and refusal is added."""
    arms: dict[str, list[Arm]] = {}
    for index in parents_first(suite.config.entries):
        entry = suite.config.entries[index]
        arms[entry.name] = list(_entry_arms(index, entry, suite, catalog, book, sites, arms, problems, refusals))
    return [arm for entry_arms in arms.values() for arm in entry_arms]


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


def _entry_arms(
    index: int,
    entry: EntryConfig,
    suite: Suite,
    catalog: Catalog,
    book: DatasetBook,
    sites: Sequence[SiteUse],
    known: Mapping[str, Sequence[Arm]],
    problems: Problems,
    refusals: Refusals,
) -> Iterator[Arm]:
    path: Path = ("entries", index)
    try:
        registered = catalog.architecture(entry.architecture)
    except SuiteError as error:
        problems.take(error, (*path, "architecture"))
        return
    except PluginError as error:
        raise PluginError(f"{suite.where(*path, 'architecture')} entries[{index}].architecture: {error}") from error
    dataset = book.get(entry.dataset)
    if dataset is None or not _parent_allowed(path, entry, registered.spec, known, problems, refusals):
        return

    trials = read_tune(path, entry, registered.spec, catalog, problems)
    if entry.tune is not None and trials is None:
        return

    def key_path(key: str) -> Path:
        block = "sweep" if key in entry.sweep else "tune" if entry.tune and key in entry.tune.grid else "config"
        return (*path, block, key) if key else (*path, "config")

    here = _sites_of(path, entry, dataset, suite, sites, book, refusals)
    if not here and entry.init_from is None:
        # the hookpoints have problems of their own; names and types of this config can be told all the same
        for own, tuned in _points(entry, trials):
            try:
                point = {**entry.config, **own, **config_values(tuned)}
                parse_options(
                    registered.spec.config, point, lambda key: suite.where(*key_path(key)), f"entries[{index}].config"
                )
            except SuiteError as error:
                problems.take(error)
    for site in here:
        for parent in _parents(path, entry, site, known, problems, refusals):
            if parent is not None and parent.base is not None:
                problems.add(
                    (*path, "init_from"),
                    f"{parent.entry!r} is a wrapper ({parent.part.architecture}); start from a plain entry, such as its own parent.",
                )
                return
            inherited = _inherited(registered, parent)
            searches: dict[str, Search] = {}
            for own, tuned in _points(entry, trials):
                point_name = _label(entry, own, tuned, parent)
                search = searches.setdefault(point_name, trials.search(point_name)) if trials is not None else None
                draft = Draft(
                    index=index,
                    entry=entry.name,
                    point=fitted(candidate_label(point_name, tuned)),
                    sweep={**(parent.sweep if parent is not None else {}), **own},
                    values={**inherited, **entry.config, **own, **config_values(tuned)},
                    key_path=key_path,
                    label=f"entries[{index}].config",
                    site=site,
                    dataset=dataset,
                    registered=registered,
                    parent=parent,
                    search=search,
                    tuned=tuned,
                )
                arm = make_arm(draft, suite, catalog, problems)
                if arm is not None:
                    yield arm


def _points(entry: EntryConfig, trials: Trials | None) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Values of each operating point, with those of each candidate there (none without a search)."""
    for values in product(*entry.sweep.values()):
        for tuned in trials.values if trials is not None else [{}]:
            yield dict(zip(entry.sweep, values, strict=True)), tuned


def _parent_allowed(
    path: Path,
    entry: EntryConfig,
    spec: ArchitectureSpec,
    known: Mapping[str, Sequence[Arm]],
    problems: Problems,
    refusals: Refusals,
) -> bool:
    if entry.init_from is None:
        if spec.parent == "required" or spec.wraps:
            problems.add(
                path,
                f"architecture {spec.name!r} starts from another entry. Add `init_from:` with the name of that entry.",
            )
            return False
        return True
    if spec.parent == "none" and not spec.wraps:
        problems.add((*path, "init_from"), f"architecture {spec.name!r} always starts fresh. Leave `init_from` out.")
        return False
    if entry.init_from.keep is not None:
        problems.add(
            (*path, "init_from", "keep"),
            "`keep` is not available in this version of saebench. Start from a parent of the same d_sae.",
        )
        return False
    parent = entry.init_from.entry
    if not known.get(parent) and parent in refusals:
        refusals.orphan(entry.name, (*path, "init_from"), parent)
    return bool(known.get(parent))  # a parent without arms has problems of its own, told already


def _sites_of(
    path: Path,
    entry: EntryConfig,
    dataset: DatasetPlan,
    suite: Suite,
    sites: Sequence[SiteUse],
    book: DatasetBook,
    refusals: Refusals,
) -> Sequence[SiteUse]:
    """Where the entry reads; places where its data cannot be had are refused."""
    at = (*path, "dataset")
    if not dataset.on_model:
        if (reason := book.lacks_model(dataset.name)) is not None:
            refusals.add(entry.name, at, reason)
            return []
        if dataset.faults:  # nobody knows how wide its vectors are
            for fault, message in dataset.faults:
                refusals.add(entry.name, fault, message)
            return []
        return [dataset_site(dataset)]
    if not suite.config.models:
        refusals.add(
            entry.name,
            at,
            f"{dataset.name!r} is {dataset.kind} and needs a language model, but the suite has none. Add `models:`.",
        )
    here = []
    for site in sites:
        if dataset.kind == "generated" and site.model is not None and site.facts is not None and not site.facts.causal:
            refusals.add(
                entry.name,
                at,
                f"{dataset.name!r} samples the model, but {site.model.id} is no causal language model. Use a text dataset.",
            )
        else:
            here.append(site)
    return here


def _parents(
    path: Path,
    entry: EntryConfig,
    site: SiteUse,
    known: Mapping[str, Sequence[Arm]],
    problems: Problems,
    refusals: Refusals,
) -> Sequence[Arm | None]:
    """The parent's arms at this site, narrowed by `at`; `[None]` for an entry that starts fresh."""
    if entry.init_from is None:
        return [None]
    name, at = entry.init_from.entry, entry.init_from.at
    here = [arm for arm in known[name] if _same_place(arm.site, site)]
    if not here and name in refusals:
        refusals.orphan(entry.name, (*path, "init_from"), name)
        return []
    if not here:
        problems.add(
            (*path, "init_from"),
            f"{name!r} has no cell at {site.site.reads or site.key[-1]!r} (d_in {site.site.d_in}). Use a dataset on the same site.",
        )
        return []
    for key, value in at.items():
        swept = list(dict.fromkeys(key for arm in here for key in arm.sweep))
        if key not in swept:
            problems.add((*path, "init_from", "at", key), f"{name!r} has no sweep over {key!r}. {hint(key, swept)}")
            return []
        if not any(arm.sweep.get(key) == value for arm in here):
            there = list(dict.fromkeys(show(arm.sweep[key]) for arm in here if key in arm.sweep))
            problems.add(
                (*path, "init_from", "at", key),
                f"got {show(value)} but {name!r} has {', '.join(there)}. Use one of these.",
            )
            return []
    narrowed = [arm for arm in here if all(arm.sweep.get(key) == value for key, value in at.items())]
    if not narrowed:
        problems.add(
            (*path, "init_from", "at"),
            f"{name!r} has no point {show(at)}. Its points: {', '.join(dict.fromkeys(arm.point for arm in here))}.",
        )
    return narrowed


def _same_place(parent: SiteUse, child: SiteUse) -> bool:
    if parent.model is None or child.model is None:
        return parent.model is child.model and parent.site.d_in == child.site.d_in
    return parent.key == child.key


def _inherited(registered: Registered[ArchitectureSpec], parent: Arm | None) -> dict[str, Any]:
    """The parent's config keys that a plain child takes over; a wrapper's base has them already."""
    if parent is None or registered.spec.wraps:
        return {}
    fields = field_names(registered.spec.config)
    return {key: value for key, value in parent.part.config.items() if key in fields}


def _label(entry: EntryConfig, own: Mapping[str, Any], tuned: Mapping[str, Any], parent: Arm | None) -> str:
    """The point's name. A child that overrides what its parent swept names the parent's point, or two points would share a name."""
    if parent is None:
        return point_label(own)
    if any(key in own or key in tuned or key in entry.config for key in parent.sweep):
        return f"{point_label(own)}-from-{parent.point}"
    return (
        "-".join(part for part in (parent.point if parent.sweep else "", point_label(own) if own else "") if part)
        or "default"
    )
