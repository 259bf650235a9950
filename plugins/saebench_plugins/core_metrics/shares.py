"""Family `latent-shares`: no ids, one array for group metrics: each latent's share of the explained variance, on stream `eval`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saebench.api import CellMetric, MetricContext, MetricResult
from saebench.matching import decoder_directions
from saebench.metrics.variance_share import VarianceShareAccumulator

if TYPE_CHECKING:
    from saebench.api import ScoredBatch, Stream


class LatentShares:
    """Array `variance-share [d_sae]` float32; absent where the SAE does not add up known directions or explains nothing."""

    def __init__(self, context: MetricContext) -> None:
        directions = decoder_directions(context.sae)
        self._sums = VarianceShareAccumulator(context.sae, directions) if directions is not None else None

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `eval`."""
        if stream == "eval" and self._sums is not None and scored.codes is not None and scored.x_hat is not None:
            self._sums.update(scored.batch.target, scored.x_hat, scored.codes)

    def compute(self) -> MetricResult:
        """The array alone."""
        shares = self._sums.shares() if self._sums is not None else None
        return MetricResult({}, arrays={} if shares is None else {"variance-share": torch.from_numpy(shares).float()})


def make(context: MetricContext) -> CellMetric:
    """See `CellMetricSpec.make`."""
    return LatentShares(context)
