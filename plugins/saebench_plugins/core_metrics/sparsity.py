"""Family `sparsity`: active latents a token, on stream `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.matching import decoder_directions
from saebench.metrics.catalogue import SPARSITY, absence, nulls
from saebench.metrics.sparsity import SparsityAccumulator

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class Sparsity:
    """Feeds `SparsityAccumulator` with the norms of the decoder directions."""

    def __init__(self, context: MetricContext) -> None:
        self._absent = absence(context, "eval")
        directions = decoder_directions(context.sae)
        self._sums = SparsityAccumulator(
            None if directions is None else torch.from_numpy(np.linalg.norm(directions, axis=1))
        )

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `eval`."""
        if stream == "eval" and scored.codes is not None:
            self._sums.update(scored.codes, scored.batch.sequence_ids)

    def compute(self) -> MetricResult:
        """All ids."""
        return MetricResult(nulls(SPARSITY, self._absent) if self._absent else self._sums.compute())


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return Sparsity(context)
