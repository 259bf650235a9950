"""Searches: each combination of the values under `tune` is a candidate of its point; they divide one share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import product
from typing import Any

from saebench.api.specs import ArchitectureSpec, CellMetricSpec
from saebench.api.values import MetricInfo
from saebench.base.near import hint
from saebench.cells.cell import Tune
from saebench.config import EntryConfig, Problems
from saebench.config.checks import LEARNING_RATE
from saebench.config.problems import Path
from saebench.host import Catalog

STREAMS = frozenset({"eval", "density"})
"""Streams that exist on the validation part: held-out data itself."""
FIELDS = frozenset({"codes", "reconstruction", "reconstruction-16bit"})


def read_tune(
    path: Path, entry: EntryConfig, spec: ArchitectureSpec, catalog: Catalog, problems: Problems
) -> list[Tune] | None:
    """The candidates of each of the entry's points, of which neither point nor search is known yet.

    Returns:
        An empty list without `tune`; None after adding problems.
    """
    tune = entry.tune
    if tune is None:
        return []
    known = [field.name for field in dataclasses.fields(spec.config) if field.init]
    unknown = [key for key in tune.grid if key not in known and key != LEARNING_RATE]
    for key in unknown:
        problems.add((*path, "tune", key), f"unknown key. {hint(key, ['metric', LEARNING_RATE, *known])}")
    usable = {
        info.id: (metric.spec, info)
        for metric in sorted(catalog.cell_metrics(), key=lambda metric: metric.spec.name)
        for info in metric.spec.provides
        if decides(metric.spec, info)
    }
    if tune.metric not in usable:
        problems.add(
            (*path, "tune", "metric"),
            f"{tune.metric!r} cannot decide a search: that takes a metric with a better side, from held-out codes and "
            f"reconstructions alone. {hint(tune.metric, usable)}",
        )
        return None
    if unknown:
        return None
    by, info = usable[tune.metric]
    values = [dict(zip(tune.grid, chosen, strict=True)) for chosen in product(*tune.grid.values())]
    return [
        Tune("", "", info.id, info.direction, by.name, by.version, values=tried, n_candidates=len(values))
        for tried in values
    ]


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
