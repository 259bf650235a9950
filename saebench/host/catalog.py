"""Every architecture, dataset and metric by name, with the package it came from."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from saebench.api.errors import PluginError, SaebenchError, SuiteError, contained, describe
from saebench.api.specs import ArchitectureSpec, CellMetricSpec, DatasetSpec, GroupMetricSpec
from saebench.base.text import without_folders
from saebench.host.discovery import LOCAL, Origin, PluginProblem, new_manager, register_all
from saebench.host.fitting import misshapen_spec

SpecT = TypeVar("SpecT", ArchitectureSpec, DatasetSpec, CellMetricSpec, GroupMetricSpec, covariant=True)


@dataclass(frozen=True)
class Registered(Generic[SpecT]):
    """One spec and where it came from."""

    spec: SpecT
    distribution: str
    version: str
    module: str

    def provenance(self) -> dict[str, str]:
        """What the record says of it."""
        return {"distribution": self.distribution, "version": self.version, "module": self.module}


@dataclass
class Catalog:
    """What the installed plugins register. Made by `load_catalog`; holds no global state."""

    architectures: dict[str, Registered[ArchitectureSpec]] = field(default_factory=dict)
    datasets: dict[str, Registered[DatasetSpec]] = field(default_factory=dict)
    metrics: dict[str, Registered[CellMetricSpec] | Registered[GroupMetricSpec]] = field(default_factory=dict)
    problems: list[PluginProblem] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    manager: pluggy.PluginManager | None = None

    def architecture(self, name: str) -> Registered[ArchitectureSpec]:
        """The architecture of this name.

        Raises:
            SuiteError: No such name; the message has the nearest ones.
            PluginError: No such name, and a broken plugin may be the reason.
        """
        return self._find(self.architectures, name, "architecture")

    def dataset(self, name: str) -> Registered[DatasetSpec]:
        """The dataset plugin of this name; raises like `architecture`."""
        return self._find(self.datasets, name, "dataset plugin")

    def cell_metrics(self) -> list[Registered[CellMetricSpec]]:
        """All cell metric specs, by name."""
        return [
            registered for _, registered in sorted(self.metrics.items()) if isinstance(registered.spec, CellMetricSpec)
        ]

    def group_metrics(self) -> list[Registered[GroupMetricSpec]]:
        """All group metric specs, by name."""
        return [
            registered for _, registered in sorted(self.metrics.items()) if isinstance(registered.spec, GroupMetricSpec)
        ]

    def cell_metric(self, name: str) -> Registered[CellMetricSpec]:
        """The cell metric spec of this name; raises like `architecture`."""
        return self._find({registered.spec.name: registered for registered in self.cell_metrics()}, name, "cell metric")

    def group_metric(self, name: str) -> Registered[GroupMetricSpec]:
        """The group metric spec of this name; raises like `architecture`."""
        return self._find(
            {registered.spec.name: registered for registered in self.group_metrics()}, name, "group metric"
        )

    def unusable_files(self) -> list[str]:
        """A line for each given file (`--plugin`) that cannot be used: nothing may name it, and whoever gave it expects it to count."""
        return [
            f"warning: plugin {one.origin.distribution} is not used: {one.message}"
            for one in self.problems
            if one.origin.version == LOCAL
        ]

    def load_model(self, ref: Mapping[str, Any]) -> Any | None:
        """The first plugin's answer to `saebench_load_model`, or None.

        Raises:
            PluginError: A plugin raised.
        """
        if self.manager is None:
            return None
        try:
            with contained():
                return self.manager.hook.saebench_load_model(ref=ref)
        except SaebenchError:
            raise
        except Exception as error:
            raise PluginError(f"model '{ref.get('id')}': saebench_load_model raised {describe(error)}") from error

    def observe(self, hook: str, **arguments: Any) -> list[str]:
        """Calls an observer hook of every plugin. An exception becomes a line of the answer and hurts nobody else."""
        if self.manager is None:
            return []
        errors = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                with contained():
                    implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:
                errors.append(without_folders(f"{implementation.plugin_name}: {hook} raised {describe(error)}"))
        return errors

    def _find(self, known: Mapping[str, Registered[SpecT]], name: str, what: str) -> Registered[SpecT]:
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        line = f"no {what} named '{name}'. {hint}Known: {', '.join(sorted(known)) or 'none'}."
        if self.problems and not near:
            broken = "; ".join(
                f"{problem.origin.name} of {problem.origin.distribution}: {problem.message}"
                for problem in self.problems
            )
            raise PluginError(
                f"{line} Broken plugins that may have registered it: {broken}. `saebench plugins` shows more."
            )
        raise SuiteError(f"{line} `saebench plugins` lists them.")


_KINDS: tuple[tuple[str, str, tuple[type, ...]], ...] = (
    ("saebench_architectures", "architectures", (ArchitectureSpec,)),
    ("saebench_datasets", "datasets", (DatasetSpec,)),
    ("saebench_metrics", "metrics", (CellMetricSpec, GroupMetricSpec)),
)


def _add(table: dict[str, Any], registered: Registered[Any], kind: str) -> None:
    other = table.get(registered.spec.name)
    if other is not None:
        raise PluginError(
            f"two plugins register the {kind.rstrip('s')} '{registered.spec.name}': {other.distribution} {other.version} ({other.module}) and "
            f"{registered.distribution} {registered.version} ({registered.module}). Uninstall one, or rename one of them."
        )
    table[registered.spec.name] = registered


def _specs_of(function: Callable[[], Sequence[Any]], allowed: tuple[type, ...]) -> list[Any]:
    specs = list(function())
    for spec in specs:
        if not isinstance(spec, allowed):
            raise PluginError(
                f"{function.__name__} must return {' or '.join(kind.__name__ for kind in allowed)}, got {type(spec).__name__}"
            )
        if wrong := misshapen_spec(spec):
            raise PluginError(wrong)
    return specs


def _check_metric_ids(catalog: Catalog) -> None:
    owners: dict[str, Registered[Any]] = {}
    for registered in catalog.metrics.values():
        for info in registered.spec.provides:
            other = owners.setdefault(info.id, registered)
            if other is not registered:
                raise PluginError(
                    f"two plugins compute the metric '{info.id}': {other.distribution} ({other.module}) and {registered.distribution} ({registered.module}). Uninstall one."
                )


def load_catalog(files: Sequence[Path] = ()) -> Catalog:
    """Asks every installed plugin, and every given file, for what it registers.

    Raises:
        PluginError: Two plugins register one name; the message names both distributions.
    """
    manager = new_manager()
    origins, problems = register_all(manager, files)
    catalog = Catalog(problems=problems, manager=manager)
    for plugin, origin in sorted(origins.items(), key=lambda item: (item[1].distribution, item[1].name)):
        # a plugin's specs come in all together or not at all: half a plugin would be harder to understand than none
        found: list[tuple[str, Registered[Any]]] = []
        try:
            for hook, table, allowed in _KINDS:
                function = getattr(plugin, hook, None)
                if function is not None:
                    with contained():
                        specs = _specs_of(function, allowed)
                    known = (Registered(spec, origin.distribution, origin.version, origin.module) for spec in specs)
                    found += [(table, registered) for registered in known]
        except Exception as error:
            catalog.problems.append(PluginProblem(origin, describe(error), traceback.format_exc()))
            manager.unregister(plugin)
            continue
        catalog.origins.append(origin)
        for table, registered in found:
            _add(getattr(catalog, table), registered, table)
    _check_metric_ids(catalog)
    return catalog
