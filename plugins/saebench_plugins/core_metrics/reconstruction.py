"""Family `reconstruction`: x_hat against the site's target, on stream `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.metrics.catalogue import RECONSTRUCTION, absence, nulls
from saebench.metrics.reconstruction import ReconstructionAccumulator

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class Reconstruction:
    """Feeds `ReconstructionAccumulator`."""

    def __init__(self, context: MetricContext) -> None:
        self._absent = absence(context, "eval")
        self._sums: ReconstructionAccumulator | None = None

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `eval`."""
        if stream != "eval" or scored.x_hat is None:
            return
        target = scored.batch.target
        if self._sums is None:
            self._sums = ReconstructionAccumulator(target.shape[1])
        self._sums.update(target, scored.x_hat, scored.batch.sequence_ids)

    def compute(self) -> MetricResult:
        """All ids."""
        if self._absent:
            return MetricResult(nulls(RECONSTRUCTION, self._absent))
        return MetricResult((self._sums or ReconstructionAccumulator(1)).compute())


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return Reconstruction(context)
