"""Searches: every combination of the values under an entry's `tune` is a candidate of its point; together they divide one share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from saebench.api.specs import ArchitectureSpec, CellMetricSpec
from saebench.api.values import MetricInfo
from saebench.base.near import hint
from saebench.config import EntryConfig, Problems
from saebench.config.checks import LEARNING_RATE
from saebench.config.problems import Path
from saebench.host import Catalog

STREAMS = frozenset({"eval", "density"})
"""Streams that exist on the validation part: held-out data itself."""
FIELDS = frozenset({"codes", "reconstruction"})


@dataclass(frozen=True, eq=False)
class Search:
    """A search at one point of one entry at one site, shared by the arms that are its candidates.

    Attributes:
        point: Label of the operating point.
        metric, direction, spec, version: What decides.
        n_candidates: Combinations that are tried.
    """

    point: str
    metric: str
    direction: str
    spec: str
    version: str
    n_candidates: int


@dataclass(frozen=True)
class Trials:
    """What an entry tries at each of its points: value by key of every candidate, and the metric that decides."""

    values: Sequence[dict[str, Any]]
    spec: CellMetricSpec
    info: MetricInfo

    def search(self, point: str) -> Search:
        """The search at one point."""
        return Search(point, self.info.id, self.info.direction, self.spec.name, self.spec.version, len(self.values))


def read_tune(
    path: Path, entry: EntryConfig, spec: ArchitectureSpec, catalog: Catalog, problems: Problems
) -> Trials | None:
    """What `entry` tries; None without `tune`, or after adding problems."""
    tune = entry.tune
    if tune is None:
        return None
    known = [field.name for field in dataclasses.fields(spec.config) if field.init]
    unknown = [key for key in tune.grid if key not in known and key != LEARNING_RATE]
    for key in unknown:
        problems.add((*path, "tune", key), f"unknown key. {hint(key, ['metric', LEARNING_RATE, *known])}")
    usable = {
        info.id: (registered.spec, info)
        for registered in sorted(catalog.cell_metrics(), key=lambda registered: registered.spec.name)
        for info in registered.spec.provides
        if decides(registered.spec, info)
    }
    if tune.metric not in usable:
        problems.add(
            (*path, "tune", "metric"),
            f"{tune.metric!r} cannot decide a search: that takes a metric with a better side, from held-out codes and reconstructions alone. {hint(tune.metric, usable)}",
        )
        return None
    if unknown:
        return None
    values = [dict(zip(tune.grid, chosen, strict=True)) for chosen in product(*tune.grid.values())]
    return Trials(values, *usable[tune.metric])


def config_values(tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Those values that belong into the architecture's config."""
    return {key: value for key, value in tuned.items() if key != LEARNING_RATE}


def decides(spec: CellMetricSpec, info: MetricInfo) -> bool:
    """Whether this metric can be taken on the validation part and says which candidate is better."""
    return (
        bool(spec.streams)
        and STREAMS.issuperset(spec.streams)
        and FIELDS.issuperset(spec.fields)
        and info.direction in ("lower", "higher")
        and not info.measured
    )
