"""Family `truth`: decoder directions and firings against the features that synthetic data was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.matching import cosine_matrix, decoder_directions, match_cosines
from saebench.metrics.accumulator import absence, metric_value, nulls
from saebench.metrics.catalogue import TRUTH
from saebench.metrics.truth import FiringF1Accumulator, uniqueness

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


SHUFFLED = "the decoder has another SAE's rows in another order, and this score does not see an order"
"""Why a shuffled decoder has neither `truth-mcc` nor `truth-uniqueness`: it would keep those of the SAE it floors."""


class Truth:
    """Matches once on |cos|, then follows the matched pairs' firings on `eval`."""

    def __init__(self, context: MetricContext) -> None:
        directions = decoder_directions(context.sae)
        self._shuffled = "shuffled_decoder" in context.tags
        self._absent: str | None = None
        if context.dictionary is None:
            self._absent = "the true features are not known: the dataset is not synthetic"
        elif directions is None:
            self._absent = "the decoder directions are not known"
        if context.dictionary is None or directions is None:
            return
        self._absent_stream = absence(context, "eval")
        cosines = cosine_matrix(directions, context.dictionary)
        self._matching = match_cosines(cosines, signed=False)
        self._uniqueness = uniqueness(cosines)
        self._firing = FiringF1Accumulator(self._matching.rows, self._matching.columns, *cosines.shape)

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `eval`."""
        if self._absent is None and stream == "eval" and scored.codes is not None and scored.batch.truth is not None:
            self._firing.update(scored.codes, scored.batch.truth, scored.batch.clusters)

    def compute(self) -> MetricResult:
        """All ids."""
        if self._absent:
            return MetricResult(nulls(TRUTH, self._absent))
        n = len(self._matching.cosines)
        firing = (
            metric_value("truth-f1", None, 0, reason=self._absent_stream)
            if self._absent_stream
            else self._firing.compute()
        )
        by_rows = {"truth-mcc": self._matching.total / n, "truth-uniqueness": self._uniqueness}
        values = {
            id: metric_value(id, None, 0, reason=SHUFFLED) if self._shuffled else metric_value(id, value, n)
            for id, value in by_rows.items()
        }
        return MetricResult({info.id: firing if info.id == "truth-f1" else values[info.id] for info in TRUTH})


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return Truth(context)
