"""Family `cost`: read from the context once scoring is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.metrics.cost import cost_values

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class CostMetrics:
    """Reads no stream."""

    def __init__(self, context: MetricContext) -> None:
        self._context = context

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Nothing to take."""

    def compute(self) -> MetricResult:
        """All ids."""
        return MetricResult(cost_values(self._context.sae, self._context.training, self._context.scoring))


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return CostMetrics(context)
