"""Which metric specs score a suite: `core`, `extended` (all there are), or those that give the listed ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api.errors import PluginError
from saebench.api.metrics import STREAMS
from saebench.api.specs import CellMetricSpec, GroupMetricSpec
from saebench.base.near import hint
from saebench.cells.cell import Cell
from saebench.cells.plan import SEEDS_ALONE
from saebench.config import Problems, Suite
from saebench.host import Catalog, Registered

ASPECTS = ("data_seed", "dataset", "entry", "hookpoint", "init_seed")
"""What the members of a group may differ in."""


@dataclass(frozen=True)
class MetricChoice:
    """The chosen specs, by name order."""

    cell: tuple[Registered[CellMetricSpec], ...]
    group: tuple[Registered[GroupMetricSpec], ...]

    @property
    def cell_versions(self) -> dict[str, str]:
        """Version by spec name."""
        return {registered.spec.name: registered.spec.version for registered in self.cell}

    @property
    def varied(self) -> list[tuple[str, ...]]:
        """Each set of aspects that some group metric varies, sorted; the init seed alone comes first, always."""
        return list(
            dict.fromkeys([SEEDS_ALONE, *sorted(tuple(sorted(registered.spec.vary)) for registered in self.group)])
        )

    def group_versions(self, vary: tuple[str, ...]) -> dict[str, str]:
        """Version by name of the specs that vary these aspects."""
        return {
            registered.spec.name: registered.spec.version
            for registered in self.group
            if tuple(sorted(registered.spec.vary)) == vary
        }


def choose_metrics(suite: Suite, catalog: Catalog, problems: Problems) -> MetricChoice:
    """Reads the suite's `metrics`; unknown ids, and group metrics that vary what cannot vary, are added as problems.

    Cell metrics without an id of their own make per-latent arrays for group metrics, and come along with any of these.
    """
    cell = sorted(catalog.cell_metrics(), key=lambda registered: registered.spec.name)
    group = sorted(catalog.group_metrics(), key=lambda registered: registered.spec.name)
    asked = suite.config.metrics

    def taken(registered: Registered[Any]) -> bool:
        if isinstance(asked, str):
            return asked == "extended" or bool(registered.spec.core)
        return any(info.id in asked for info in registered.spec.provides)

    for clash in catalog.clashes:
        if any(isinstance(one.spec, CellMetricSpec | GroupMetricSpec) and taken(one) for one in clash.specs):
            raise PluginError(clash.message)
    known = [*_ids(cell), *_ids(group)]
    if not isinstance(asked, str):
        for i, name in enumerate(asked):
            if name not in known:
                problems.add(("metrics", i), f"no metric named {name!r}. {hint(name, known)}")

    groups = tuple(filter(taken, group))
    for registered in groups:
        if not registered.spec.vary or not registered.spec.vary <= set(ASPECTS):
            found = ", ".join(sorted(registered.spec.vary)) or "nothing"
            problems.line(
                f"group metric '{registered.spec.name}' varies {found}; allowed are {', '.join(ASPECTS)}. Mend it."
            )
    cells = (
        registered
        for registered in cell
        if taken(registered) or (groups and registered.spec.core and not registered.spec.provides)
    )
    chosen = MetricChoice(tuple(cells), groups)
    streams = (*STREAMS, *sorted(catalog.added_streams()))
    for metric in chosen.cell:
        for stream in metric.spec.streams:
            if stream not in streams:
                problems.line(
                    f"metric '{metric.spec.name}' of {metric.distribution} reads a stream {stream!r}. "
                    f"{hint(stream, streams)}"
                )
    return chosen


def streams_of(cell: Cell, catalog: Catalog) -> frozenset[str]:
    """Streams that the metrics of a cell read."""
    return frozenset(name for metric in cell.metrics for name in catalog.cell_metric(metric).spec.streams)


def _ids(chosen: Sequence[Registered[Any]]) -> list[str]:
    return [info.id for registered in chosen for info in registered.spec.provides]
