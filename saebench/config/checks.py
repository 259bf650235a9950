"""What can be wrong with a suite beyond single values, without plugins: names that must be known, or must differ."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod
from typing import Any

from saebench.base.near import hint
from saebench.config.numbers import is_number
from saebench.config.problems import Path, Problems, show
from saebench.config.schema import EntryConfig, SuiteConfig, TuneConfig

CONTROL_PREFIX = "control-"
MOST_CELLS = 20_000
LEARNING_RATE = "lr"
"""The key of `tune` that is no config key of an architecture."""


def check_suite(config: SuiteConfig, problems: Problems) -> None:
    """Adds every cross-reference problem of `config`."""
    _references(config, problems)
    _repeats(config, problems)
    _budget(config, problems)
    _size(config, problems)
    for i, entry in enumerate(config.entries):
        _entry(i, entry, config, problems)
    for at, train in [
        (("train",), config.train),
        *((("entries", i, "train"), entry.train) for i, entry in enumerate(config.entries)),
    ]:
        if train.warmup != "auto" and train.decay != "auto" and train.warmup + train.decay > 1:
            problems.add(
                at,
                f"warmup {train.warmup:g} and decay {train.decay:g} are fractions of the allotment and give more than "
                "1.",
            )


def _references(config: SuiteConfig, problems: Problems) -> None:
    for i, name in enumerate(config.evaluation.datasets or ()):
        if name not in config.datasets:
            problems.add(("evaluation", "datasets", i), f"no dataset named {name!r}. {hint(name, config.datasets)}")
    for i, entry in enumerate(config.entries):
        if entry.dataset not in config.datasets:
            problems.add(
                ("entries", i, "dataset"), f"no dataset named {entry.dataset!r}. {hint(entry.dataset, config.datasets)}"
            )


def _repeats(config: SuiteConfig, problems: Problems) -> None:
    # file systems of some machines take names that differ in case for one
    _twice([entry.name.lower() for entry in config.entries], lambda i: ("entries", i, "name"), "entry name", problems)
    _twice([(model.id, model.revision) for model in config.models], lambda i: ("models", i), "model", problems)
    for i, model in enumerate(config.models):
        _twice(model.hookpoints, lambda j, i=i: ("models", i, "hookpoints", j), "hookpoint", problems)
    _twice(config.evaluation.datasets or (), lambda i: ("evaluation", "datasets", i), "dataset", problems)
    for key in ("init", "data", "evaluation"):
        _twice(getattr(config.seeds, key), lambda i, key=key: ("seeds", key, i), "seed", problems)
    if not isinstance(config.metrics, str):
        _twice(config.metrics, lambda i: ("metrics", i), "metric", problems)


def _twice(values: Sequence[Any], path: Any, what: str, problems: Problems) -> None:
    seen: set[Any] = set()
    for i, value in enumerate(values):
        key = value if isinstance(value, Hashable) and not isinstance(value, tuple) else repr(value)
        if key not in seen:
            seen.add(key)
        else:
            shown = value[0] if isinstance(value, tuple) else value
            problems.add(
                path(i),
                f"{what} {show(shown)} is given twice. Keep one"
                + (", or give this one another name." if what == "entry name" else "."),
            )


def _budget(config: SuiteConfig, problems: Problems) -> None:
    budget = config.budget
    if getattr(budget, budget.primary) is None:
        problems.add(
            ("budget",),
            f"primary is {budget.primary} but `{budget.primary}:` is not given. Add it, in "
            f"{budget.primary.replace('_', ' ')} a cell.",
        )


def _size(config: SuiteConfig, problems: Problems) -> None:
    """Refuses a product of lists that is too large to run, before it is expanded."""
    by_name = {entry.name: entry for entry in config.entries}
    seeds = len(config.seeds.init) * len(config.seeds.data)
    places = max(1, sum(len(model.hookpoints) for model in config.models))
    total = 0
    for i, entry in enumerate(config.entries):
        points, here, chain = 1, entry, 0
        while chain <= len(config.entries):
            points *= prod(map(len, here.sweep.values())) * prod(map(len, here.tune.grid.values() if here.tune else ()))
            if here.init_from is None or here.init_from.entry not in by_name:
                break
            here, chain = by_name[here.init_from.entry], chain + 1
        n_cells = points * seeds * places
        total += n_cells
        if n_cells > MOST_CELLS:
            problems.add(
                ("entries", i),
                f"{points:,} points at {places:,} places with {seeds:,} seeds each are {n_cells:,} cells; a suite has "
                f"at most {MOST_CELLS:,}. List fewer values.",
            )
            return
    if total > MOST_CELLS:
        problems.add(("entries",), f"{total:,} cells in all; a suite has at most {MOST_CELLS:,}. Split the suite.")


def _entry(i: int, entry: EntryConfig, config: SuiteConfig, problems: Problems) -> None:
    if entry.name.startswith(CONTROL_PREFIX):
        problems.add(
            ("entries", i, "name"),
            f"got {entry.name!r}; names that begin with {CONTROL_PREFIX!r} belong to the controls. Take another name.",
        )
    for key, values in entry.sweep.items():
        if key in entry.config:
            problems.add(("entries", i, "sweep", key), "is in config too. Keep it in one of the two.")
        _twice(values, lambda j, key=key: ("entries", i, "sweep", key, j), "value", problems)
    if entry.tune is not None:
        _tune(i, entry, entry.tune, problems)
    if entry.init_from is None:
        return
    names = [other.name for other in config.entries if other.name != entry.name]
    at: Path = ("entries", i, "init_from")
    if entry.init_from.entry == entry.name:
        problems.add(at, "an entry cannot start from itself.")
    elif entry.init_from.entry not in names:
        problems.add(at, f"no entry named {entry.init_from.entry!r}. {hint(entry.init_from.entry, names)}")
    elif any(other.name == entry.init_from.entry and other.tune is not None for other in config.entries):
        problems.add(
            at,
            f"{entry.init_from.entry!r} is tuned: which of its candidates wins is known only when all have been "
            "scored. "
            "Run the search, write the values it finds into the config of an entry without `tune`, and start from that "
            "one.",
        )
    else:
        _circle(i, entry, config, problems)


def _tune(i: int, entry: EntryConfig, tune: TuneConfig, problems: Problems) -> None:
    at: Path = ("entries", i, "tune")
    for key, values in tune.grid.items():
        for block in ("config", "sweep"):
            if key in getattr(entry, block):
                problems.add((*at, key), f"is in {block} too. Keep it in one of the two.")
        _twice(values, lambda j, key=key: (*at, key, j), "value", problems)
    if LEARNING_RATE in tune.grid and "lr" in entry.train.model_fields_set:
        problems.add((*at, LEARNING_RATE), "is in train too. Keep it in one of the two.")
    for j, value in enumerate(tune.grid.get(LEARNING_RATE, ())):
        if value != "auto" and (not is_number(value) or value <= 0):
            problems.add((*at, LEARNING_RATE, j), f"got {show(value)} but a number over 0 or auto is expected.")
    if prod(len(values) for values in tune.grid.values()) < 2:
        problems.add(
            at,
            "a search needs two candidates or more. List values to try, such as `tune: {lr: [0.0003, 0.001]}`; what is "
            "fixed belongs in config or train.",
        )


def _circle(i: int, entry: EntryConfig, config: SuiteConfig, problems: Problems) -> None:
    parents = {other.name: other.init_from.entry for other in config.entries if other.init_from}
    chain = [entry.name]
    while chain[-1] in parents and len(chain) <= len(parents) + 1:
        chain.append(parents[chain[-1]])
        if chain[-1] == entry.name:
            problems.add(
                ("entries", i, "init_from"), f"goes in a circle: {' <- '.join(chain)}. Let one of them start fresh."
            )
            return
