"""Finding plugins, one at a time, so that a broken one is a line in `saebench plugins` and nothing more."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from saebench.api import hookspecs
from saebench.api.errors import PluginError, describe, place
from saebench.api.hookspecs import ENTRY_POINT_GROUP, PROJECT

_HOOK_PREFIX = "saebench_"
LOCAL = "local"
"""The version of a plugin that is a given file."""


@dataclass(frozen=True)
class Origin:
    """Where a plugin came from."""

    name: str
    module: str
    distribution: str
    version: str


@dataclass(frozen=True)
class PluginProblem:
    """A plugin that cannot be used, and why. `details` is the traceback."""

    origin: Origin
    message: str
    details: str = ""


def new_manager() -> pluggy.PluginManager:
    """A manager of its own for each call: nothing is shared between two catalogs."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    return manager


def _origin_of(point: EntryPoint) -> Origin:
    dist = point.dist
    return Origin(point.name, point.value, dist.name if dist else "unknown", dist.version if dist else "unknown")


def _installed() -> Iterator[tuple[Origin, EntryPoint]]:
    # one environment can show a distribution twice (an editable install beside a folder on the path): the first one
    # counts, as for import
    seen: set[tuple[str, str]] = set()
    for point in sorted(
        entry_points(group=ENTRY_POINT_GROUP), key=lambda point: (point.dist.name if point.dist else "", point.name)
    ):
        origin = _origin_of(point)
        if (origin.distribution, origin.name) not in seen:
            seen.add((origin.distribution, origin.name))
            yield origin, point


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise PluginError(
            f"--plugin {path}: no such file. Give a Python file with hook implementations (see docs/hooks.md)."
        )
    # two files of one name in different folders are two modules
    place = hashlib.sha256(str(path.absolute()).encode(errors="surrogateescape")).hexdigest()[:8]
    name = f"saebench_local_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"--plugin {path}: not a Python file. Give a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and "module:attribute" references look modules up here
    spec.loader.exec_module(module)
    return module


def _check_hook_names(manager: pluggy.PluginManager, plugin: object) -> None:
    # pluggy ignores a function that it does not know as long as it carries no marker: a misspelt hook would do nothing,
    # silently
    known = {name for name in dir(hookspecs) if name.startswith(_HOOK_PREFIX)}
    for name in dir(plugin):
        if name.startswith(_HOOK_PREFIX) and name not in known and callable(getattr(plugin, name)):
            raise PluginError(f"{name} is no hook of saebench. Hooks are: {', '.join(sorted(known))}.")
    if not manager.get_hookcallers(plugin):
        raise PluginError(
            f"no hook implementation found. Write @saebench.api.hookimpl above one of: {', '.join(sorted(known))}."
        )


def register_all(
    manager: pluggy.PluginManager, files: Sequence[Path] = ()
) -> tuple[dict[Any, Origin], list[PluginProblem]]:
    """Registers every installed plugin and every given file.

    Returns:
        The origin of each registered plugin object, and the problems of those that could not be registered.
    """
    origins: dict[Any, Origin] = {}
    problems: list[PluginProblem] = []

    def register(origin: Origin, load: Any) -> None:
        plugin = None
        try:
            plugin = load()
            manager.register(plugin, name=f"{origin.distribution}:{origin.name}")
            _check_hook_names(manager, plugin)
            origins[plugin] = origin
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may even call sys.exit at import
            if plugin is not None and manager.is_registered(plugin):
                manager.unregister(plugin)
            problems.append(PluginProblem(origin, describe(error) + place(error), traceback.format_exc()))

    for origin, point in _installed():
        register(origin, point.load)
    for path in files:
        register(Origin(path.stem, str(path), f"file {path}", LOCAL), lambda path=path: _load_file(path))
    return origins, problems
