"""Family `density`: how often latents fire, on stream `density`; and what the strongest contexts look like, on stream `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.metrics.catalogue import DENSITY, absence, nulls
from saebench.metrics.contexts import ContextCollector
from saebench.metrics.density import DensityAccumulator

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class Density:
    """Details `density-histogram` and, where the stream has tokens, `strongest-contexts`; array `density [d_sae]` float32."""

    def __init__(self, context: MetricContext) -> None:
        self._absent = absence(context, "density")
        self._counts = DensityAccumulator(context.d_sae)
        self._contexts = ContextCollector(context.d_sae)

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `density` or `eval`."""
        if scored.codes is None:
            return
        if stream == "density":
            self._counts.update(scored.codes, scored.batch.sequence_ids)
        elif stream == "eval":
            self._contexts.update(scored.batch, scored.codes)

    def compute(self) -> MetricResult:
        """All ids."""
        counted = self._absent is None and self._counts.n_tokens > 0
        contexts = self._contexts.compute(self._counts.density() if counted else None)
        details: dict[str, Any] = {"strongest-contexts": contexts} if contexts else {}
        if self._absent:
            return MetricResult(nulls(DENSITY, self._absent), details)
        if not counted:
            return MetricResult(self._counts.compute(), details)
        details["density-histogram"] = self._counts.histogram()
        return MetricResult(
            self._counts.compute(), details, {"density": torch.from_numpy(self._counts.density()).float()}
        )


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return Density(context)
