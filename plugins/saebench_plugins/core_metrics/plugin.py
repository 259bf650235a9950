"""Specs of the core metrics. Loads no torch: the `make` strings name what computes."""

from __future__ import annotations

from collections.abc import Sequence

from saebench.api import CellMetricSpec, GroupMetricSpec, MetricSpec, hookimpl
from saebench.metrics.catalogue import (
    AGREEMENT,
    COST,
    DENSITY,
    LOSSES,
    RECONSTRUCTION,
    ROUNDED,
    SPARSITY,
    STABILITY,
    TRUTH,
)

_HERE = "saebench_plugins.core_metrics"

METRICS: tuple[MetricSpec, ...] = (
    CellMetricSpec(
        name="reconstruction",
        version="3",
        provides=RECONSTRUCTION + ROUNDED,
        make=f"{_HERE}.make:reconstruction",
        streams=("eval",),
        fields=("reconstruction", "reconstruction-16bit"),
        core=True,
    ),
    CellMetricSpec(
        name="losses",
        version="3",
        provides=LOSSES,
        make=f"{_HERE}.make:losses",
        streams=("loss",),
        fields=("losses",),
        core=True,
    ),
    CellMetricSpec(
        name="sparsity",
        version="3",
        provides=SPARSITY,
        make=f"{_HERE}.make:sparsity",
        streams=("eval",),
        fields=("codes",),
        core=True,
    ),
    CellMetricSpec(
        name="density",
        version="2",
        provides=DENSITY,
        make=f"{_HERE}.make:density",
        streams=("density", "eval"),
        fields=("codes",),
        core=True,
    ),
    CellMetricSpec(
        name="truth",
        version="3",
        provides=TRUTH,
        make=f"{_HERE}.truth:make",
        streams=("eval",),
        fields=("codes", "truth"),
        core=True,
    ),
    CellMetricSpec(name="cost", version="2", provides=COST, make="saebench.metrics.cost:CostAccumulator", core=True),
    CellMetricSpec(
        name="latent-shares",
        version="1",
        provides=(),
        make=f"{_HERE}.make:shares",
        streams=("eval",),
        fields=("codes", "reconstruction"),
        core=True,
    ),
    GroupMetricSpec(
        name="stability",
        version="3",
        provides=STABILITY,
        make=f"{_HERE}.stability:make",
        vary=frozenset({"init_seed"}),
        streams=True,
        core=True,
    ),
    GroupMetricSpec(
        name="agreement",
        version="2",
        provides=AGREEMENT,
        make=f"{_HERE}.agreement:make",
        vary=frozenset({"init_seed", "dataset"}),
        core=True,
    ),
)


@hookimpl
def saebench_metrics() -> Sequence[MetricSpec]:
    """Reconstruction, losses, sparsity, density, truth, cost; stability over seeds; agreement over datasets too."""
    return METRICS
