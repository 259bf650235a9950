"""Family `reconstruction`, ids of the spliced model: cross-entropy and KL on stream `loss`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.metrics.catalogue import LOSSES, absence, nulls
from saebench.metrics.losses import LossAccumulator

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class Losses:
    """Feeds `LossAccumulator`."""

    def __init__(self, context: MetricContext) -> None:
        self._absent = absence(context, "loss")
        self._sums = LossAccumulator()

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `loss`."""
        if stream == "loss" and scored.losses is not None:
            self._sums.update(scored.losses, scored.batch.sequence_ids)

    def compute(self) -> MetricResult:
        """All ids."""
        return MetricResult(nulls(LOSSES, self._absent) if self._absent else self._sums.compute())


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return Losses(context)
