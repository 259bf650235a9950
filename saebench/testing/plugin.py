"""All checks of what a plugin registers, found by name: what `saebench check` prints."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.api import ArchitectureSpec, DatasetSpec, PluginError, Site, SuiteError
from saebench.api.specs import resolve
from saebench.base.near import hint
from saebench.config import parse_options
from saebench.host import Catalog, Registered
from saebench.testing.check import Check, Rule, Skip, run_rules
from saebench.testing.contract import check_architecture
from saebench.testing.datasets import check_dataset
from saebench.testing.metrics import check_metric

EXAMPLES = {"int": 4, "float": 0.1, "bool": False}
D_IN, D_SAE = 16, 32
BASE = "topk"
"""What a wrapper is tried around."""


@dataclass(frozen=True)
class Checked:
    """One thing that a plugin registers, and what was found. `what`: `architecture 'topk' 1`."""

    what: str
    checks: tuple[Check, ...]


def check_plugin(name: str, catalog: Catalog, values: Mapping[str, Any]) -> Iterator[Checked]:
    """Checks an architecture, a dataset, a metric, or all that a package registers.

    Args:
        name: Of one of them, of a distribution, or of an entry point.
        catalog: Installed plugins.
        values: Config keys or options to try it with; what is left out is its default, or a small number.

    Raises:
        PluginError: It cannot be loaded, or two plugins register the name.
        SuiteError: No plugin has the name; or a value is needed that cannot be guessed.
    """
    for problem in catalog.problems:
        if name in (problem.origin.name, problem.origin.distribution):
            raise PluginError(f"{problem.origin.name} of {problem.origin.distribution}: {problem.message}")
    for clash in catalog.clashes:
        if clash.concerns(name):
            raise PluginError(clash.message)
    modules = {origin.module for origin in catalog.origins if name in (origin.name, origin.distribution)}
    tables: tuple[Mapping[str, Registered[Any]], ...] = (catalog.architectures, catalog.datasets, catalog.metrics)
    everything = [one for table in tables for _, one in sorted(table.items())]
    chosen = [one for one in everything if _is_meant(one, name)] or [one for one in everything if one.module in modules]
    for registered in chosen:
        spec = registered.spec
        if isinstance(spec, ArchitectureSpec):
            checks = _architecture(spec, catalog, values)
            yield Checked(f"architecture '{spec.name}' {spec.version}", checks)
        elif isinstance(spec, DatasetSpec):
            options: Any = _example(spec.options, values)
            yield Checked(f"dataset '{spec.name}' {spec.version}", tuple(check_dataset(spec, options)))
        else:
            yield Checked(f"metric '{spec.name}' {spec.version}", tuple(check_metric(spec)))
    observers = _observers(catalog, name)
    for who, hooks in observers.items():
        yield Checked(f"observer '{who}'", run_rules(OBSERVER_RULES, hooks))
    if not chosen and not observers:
        known = sorted({one.spec.name for one in everything} | {origin.distribution for origin in catalog.origins})
        raise SuiteError(
            f"no plugin named '{name}'. {hint(name, known)} Install its package (pip install -e .), or give its file "
            "with --plugin."
        )


def _is_meant(registered: Registered[Any], name: str) -> bool:
    spec = registered.spec
    return name == spec.name or any(name == info.id for info in getattr(spec, "provides", ()))


def _example(kind: Any, values: Mapping[str, Any]) -> Any:
    """A config or options: values given, then defaults, then small numbers."""
    made = dict(values)
    for field in dataclasses.fields(kind):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        guess = D_SAE if field.name == "d_sae" else EXAMPLES.get(str(getattr(field.type, "__name__", field.type)))
        if field.name not in made and needed:
            if guess is None:
                raise SuiteError(f"{kind.__name__}.{field.name} has no default. Give it: --set {field.name}=VALUE.")
            made[field.name] = guess
    return parse_options(kind, made, lambda key: "--set", kind.__name__)


def _architecture(spec: ArchitectureSpec, catalog: Catalog, values: Mapping[str, Any]) -> tuple[Check, ...]:
    config: Any = _example(spec.config, values)
    if list(spec.check(config, Site(D_IN, D_IN))) and "d_sae" not in values and hasattr(config, "d_sae"):
        config = dataclasses.replace(config, d_sae=D_IN)  # such as an identity
    base = _base(catalog) if spec.wraps else None
    return tuple(check_architecture(spec, config, d_in=D_IN, base=base))


def _base(catalog: Catalog) -> Callable[[], Any]:
    import torch

    spec = catalog.architecture(BASE).spec
    config: Any = _example(spec.config, {})
    site = Site(D_IN, D_IN)
    return lambda: resolve(spec.build)(config, site=site, generator=torch.Generator().manual_seed(7))


Hooks = dict[str, Callable[..., object]]
CELL = {"cell_id": "0" * 16, "entry": "example", "point": "k4", "init_seed": 0, "architecture": "topk"}
RECORD = {
    "facts": {
        "suite": "example",
        "entry": "example",
        "status": "ok",
        "error": None,
        "cell": CELL,
        "metrics": {
            "fvu": {"value": 0.2, "unit": "fraction", "direction": "lower", "n": 9, "stderr": 0.01, "reason": None},
            "mcc": {
                "value": None,
                "unit": "ratio",
                "direction": "higher",
                "n": 0,
                "stderr": None,
                "reason": "no truth",
            },
        },
    },
    "measured": {"metrics": {}},
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "saebench_plan_ready": {"plan": {"suite": "example", "cells": [CELL]}},
    "saebench_cell_started": {"cell": CELL},
    "saebench_train_progress": {"cell_id": "0" * 16, "tokens": 512, "allotted": 1_024, "fvu": None, "l0": 4.0},
    "saebench_cell_finished": {"record": RECORD},
    "saebench_leaderboard_written": {"folder": Path("runs/example/leaderboard")},
}


def _observers(catalog: Catalog, name: str) -> dict[str, Hooks]:
    """Observer hooks of the plugins of this name."""
    found: dict[str, Hooks] = {}
    names = {f"{o.distribution}:{o.name}" for o in catalog.origins if name in (o.name, o.distribution)}
    for hook in ARGUMENTS if catalog.manager is not None else ():
        for implementation in getattr(catalog.manager.hook, hook).get_hookimpls():  # type: ignore[union-attr]
            if implementation.plugin_name in names:
                arguments = tuple(implementation.argnames)

                def call(given: Mapping[str, Any], run: Any = implementation.function, names: Any = arguments) -> None:
                    run(*(given[one] for one in names))

                found.setdefault(implementation.plugin_name, {})[hook] = call
    return found


def _each_returns(hooks: Hooks) -> None:
    for name, call in hooks.items():
        try:
            call(ARGUMENTS[name])
        except Exception as error:
            raise AssertionError(f"{name} raised {type(error).__name__}: {error}") from error


def _nothing_is_changed(hooks: Hooks) -> None:
    for name, call in hooks.items():
        given = copy.deepcopy(ARGUMENTS[name])
        try:
            call(given)
        except Exception as error:
            raise Skip(f"{name} raises") from error
        assert given == ARGUMENTS[name], f"{name} writes to what it is told"


OBSERVER_RULES: tuple[Rule[Hooks], ...] = (
    Rule(
        "each hook takes what it is told",
        _each_returns,
        "Take arguments by the names in docs/plugin-guide.md. fvu, l0 and a metric's value may be None.",
    ),
    Rule("what a hook is told stays as it is", _nothing_is_changed, "Copy what you change.", (_each_returns,)),
)
