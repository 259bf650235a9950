"""Every architecture, dataset and metric by name, with the package it came from."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from saebench.api.errors import PluginError, SaebenchError, SuiteError, contained, describe, place
from saebench.api.specs import ArchitectureSpec, CellMetricSpec, DatasetSpec, GroupMetricSpec, StreamSpec
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


@dataclass(frozen=True)
class Clash:
    """Names that more than one spec has. None of these specs is used; whatever needs one of the names fails with the
    message.

    Attributes:
        kind: `architecture`, `dataset plugin` or `metric`.
        names: Of the specs, and of metrics also their ids and the streams that they add.
        specs: All that have one of the names.
    """

    kind: str
    names: tuple[str, ...]
    specs: tuple[Registered[Any], ...]

    def concerns(self, name: str) -> bool:
        """True for its names, and those of its specs."""
        return name in self.names or any(registered.spec.name == name for registered in self.specs)

    @property
    def problem(self) -> PluginProblem:
        """As `saebench plugins` lists it: under its names, with all that registered them."""
        modules, distributions = (
            ", ".join(dict.fromkeys(getattr(registered, key) for registered in self.specs))
            for key in ("module", "distribution")
        )
        return PluginProblem(Origin(", ".join(self.names), modules, distributions, ""), self.message)

    @property
    def message(self) -> str:
        """Which names, and both places that they come from."""
        several = len(self.names) > 1
        who = " and by ".join(
            f"{one.distribution} {one.version} ({one.module}, '{one.spec.name}')" for one in self.specs
        )
        return (
            f"{self.kind}{'s' * several} {', '.join(map(repr, self.names))} {'are' if several else 'is'} registered by "
            f"{who}. "
            "Uninstall one, or rename one of them."
        )


@dataclass
class Catalog:
    """What the installed plugins register. Made by `load_catalog`; holds no global state."""

    architectures: dict[str, Registered[ArchitectureSpec]] = field(default_factory=dict)
    datasets: dict[str, Registered[DatasetSpec]] = field(default_factory=dict)
    metrics: dict[str, Registered[CellMetricSpec] | Registered[GroupMetricSpec]] = field(default_factory=dict)
    problems: list[PluginProblem] = field(default_factory=list)
    clashes: list[Clash] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    manager: pluggy.PluginManager | None = None
    dry_built: set[str] = field(default_factory=set)
    """Architectures that were built without memory, so that a plan does it once."""

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

    def added_streams(self) -> dict[str, tuple[StreamSpec, CellMetricSpec]]:
        """Streams that metrics add, by name, each with the spec that adds it."""
        specs = (registered.spec for registered in self.cell_metrics())
        return {stream.name: (stream, spec) for spec in specs for stream in spec.adds}

    def cell_metric(self, name: str) -> Registered[CellMetricSpec]:
        """The cell metric spec of this name; raises like `architecture`."""
        return self._find({registered.spec.name: registered for registered in self.cell_metrics()}, name, "cell metric")

    def group_metric(self, name: str) -> Registered[GroupMetricSpec]:
        """The group metric spec of this name; raises like `architecture`."""
        return self._find(
            {registered.spec.name: registered for registered in self.group_metrics()}, name, "group metric"
        )

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
        """Calls an observer hook of every plugin. An exception becomes a line of the answer; the others are called."""
        if self.manager is None:
            return []
        errors = []
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            try:
                with contained():
                    implementation.function(*(arguments[name] for name in implementation.argnames))
            except Exception as error:  # noqa: BLE001 - a plugin's own code
                errors.append(without_folders(f"{implementation.plugin_name}: {hook} raised {describe(error)}"))
        return errors

    def _find(self, known: Mapping[str, Registered[SpecT]], name: str, what: str) -> Registered[SpecT]:
        if name in known:
            return known[name]
        for clash in self.clashes:
            if what.endswith(clash.kind) and clash.concerns(name):
                raise PluginError(clash.message)
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


_KINDS: tuple[tuple[str, str, str, tuple[type, ...]], ...] = (
    ("saebench_architectures", "architectures", "architecture", (ArchitectureSpec,)),
    ("saebench_datasets", "datasets", "dataset plugin", (DatasetSpec,)),
    ("saebench_metrics", "metrics", "metric", (CellMetricSpec, GroupMetricSpec)),
)


def _clashes(kind: str, specs: Sequence[Registered[Any]]) -> list[Clash]:
    """Names of specs, ids of metrics and streams that they add, where they occur more than once; one clash for all
    names of the same specs."""
    owners: dict[tuple[str, str], list[Registered[Any]]] = {}
    for registered in specs:
        owners.setdefault(("name", registered.spec.name), []).append(registered)
        for info in getattr(registered.spec, "provides", ()):
            owners.setdefault(("id", info.id), []).append(registered)
        for stream in getattr(registered.spec, "adds", ()):
            owners.setdefault(("stream", stream.name), []).append(registered)
    found: dict[tuple[int, ...], Clash] = {}
    for (_, name), those in owners.items():
        if len(those) > 1:
            key = tuple(map(id, those))
            names = found[key].names if key in found else ()
            found[key] = Clash(kind, tuple(dict.fromkeys((*names, name))), tuple(those))
    return list(found.values())


def _specs_of(function: Callable[[], Sequence[Any]] | None, allowed: tuple[type, ...]) -> list[Any]:
    if function is None:
        return []
    with contained():
        specs = list(function())
    for spec in specs:
        if not isinstance(spec, allowed):
            raise PluginError(
                f"{function.__name__} must return {' or '.join(kind.__name__ for kind in allowed)}, got "
                f"{type(spec).__name__}"
            )
        if wrong := misshapen_spec(spec):
            raise PluginError(wrong)
    return specs


def load_catalog(files: Sequence[Path] = (), say: Callable[[str], None] = lambda line: None) -> Catalog:
    """Asks every installed plugin, and every given file, for what it registers.

    Args:
        files: Local plugins (`--plugin`).
        say: Hears a line for each of these that cannot be used: nothing may name it, and whoever gave it expects it to
            count.
    """
    manager = new_manager()
    origins, problems = register_all(manager, files)
    catalog = Catalog(problems=problems, manager=manager)
    found: dict[str, list[Registered[Any]]] = {table: [] for _, table, _, _ in _KINDS}
    for plugin, origin in sorted(origins.items(), key=lambda item: (item[1].distribution, item[1].name)):
        # a plugin's specs come in all together or not at all: half a plugin would be harder to understand than none
        try:
            specs = {table: _specs_of(getattr(plugin, hook, None), allowed) for hook, table, _, allowed in _KINDS}
        except Exception as error:  # noqa: BLE001 - a plugin's own code
            catalog.problems.append(PluginProblem(origin, describe(error) + place(error), traceback.format_exc()))
            manager.unregister(plugin)
            continue
        catalog.origins.append(origin)
        for table, those in specs.items():
            found[table] += [Registered(spec, origin.distribution, origin.version, origin.module) for spec in those]
    for _, table, kind, _ in _KINDS:
        clashes = _clashes(kind, found[table])
        unusable = {id(registered) for clash in clashes for registered in clash.specs}
        getattr(catalog, table).update({one.spec.name: one for one in found[table] if id(one) not in unusable})
        catalog.clashes += clashes
    for problem in catalog.problems:
        if problem.origin.version == LOCAL:
            say(f"warning: plugin {problem.origin.distribution} is not used: {problem.message}")
    for clash in catalog.clashes:
        if any(registered.version == LOCAL for registered in clash.specs):
            say(f"warning: {clash.message}")
    return catalog
