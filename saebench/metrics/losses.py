"""What splicing x_hat into the model does to its predictions. All losses in nats, one a token.

CE_zero and CE_mean replace the activation at the same positions as the splice does; a zero ablation alone makes a large
denominator beside which much damage seems small, so both recovered fractions and all raw losses are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from saebench.metrics.accumulator import NO_TOKENS, StreamAccumulator, metric_value, nulls
from saebench.metrics.catalogue import LOSSES
from saebench.metrics.clusters import ClusterSums, Collected, ratio

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.api.batches import ScoredBatch, SplicedLosses
    from saebench.api.values import MetricValue

SMALLEST_GAP = 0.01
"""Nats. Where ablating costs less than this, a recovered fraction would divide noise by noise: it is null."""


class LossAccumulator(StreamAccumulator):
    """All loss metrics from one pass over stream `loss`."""

    stream = "loss"
    metrics = LOSSES
    _names = ("ce_clean", "ce_spliced", "ce_zero", "ce_mean", "kl_spliced", "kl_zero")

    def __init__(self, absent: str | None = None) -> None:
        super().__init__(absent)
        self._sums = ClusterSums(*self._names, "unfit")

    def take(self, scored: ScoredBatch) -> None:
        """Add one batch of the stream."""
        if scored.losses is not None:
            self.add(scored.losses, scored.batch.clusters)

    def add(self, losses: SplicedLosses, sequence_ids: Tensor | None = None) -> None:
        """Take the losses of B tokens, `sequence_ids [B]` or None."""
        columns = {name: getattr(losses, name).detach().double() for name in self._names}
        unfit = ~torch.stack(list(columns.values())).isfinite().all(0)
        self._sums.add(sequence_ids, unfit=unfit, **columns)

    def values(self) -> dict[str, MetricValue]:
        """Every metric of this family by id.

        Means over tokens: `ce-clean`, `ce-spliced`, `ce-zero`, `ce-mean`, `kl`.
        `ce-recovered-A` = (CE_A - CE_spliced) / (CE_A - CE_clean) for A in zero, mean: 1 is lossless, 0 is as bad as
        ablating. `kl-recovered` = 1 - KL_spliced / KL_zero. Recovered fractions are null where their denominator is
        under 0.01 nats.
        """
        sums = self._sums.collect()
        n = sums.n
        n_unfit = round(float(sums["unfit"].sum()))
        if n == 0 or n_unfit:
            return nulls(LOSSES, f"the loss is not finite for {n_unfit} of {n} tokens" if n else NO_TOKENS, n)
        means = {
            "ce-clean": "ce_clean",
            "ce-spliced": "ce_spliced",
            "ce-zero": "ce_zero",
            "ce-mean": "ce_mean",
            "kl": "kl_spliced",
        }
        values = {}
        for id, name in means.items():
            value, error = sums.mean(name)
            values[id] = metric_value(id, value, n, stderr=error)
        values["ce-recovered-zero"] = _recovered("ce-recovered-zero", sums, "ce_zero", "ce_spliced", "ce_clean")
        values["ce-recovered-mean"] = _recovered("ce-recovered-mean", sums, "ce_mean", "ce_spliced", "ce_clean")
        values["kl-recovered"] = _recovered("kl-recovered", sums, "kl_zero", "kl_spliced", None)
        return {info.id: values[info.id] for info in LOSSES}


def _recovered(id: str, sums: Collected, ablated: str, spliced: str, clean: str | None) -> MetricValue:
    """(ablated - spliced) / (ablated - clean), with clean = 0 for a KL."""
    denominators = sums[ablated] - sums[clean] if clean else sums[ablated]
    gap = float(denominators.sum()) / sums.n
    if gap < SMALLEST_GAP:
        return metric_value(
            id,
            None,
            sums.n,
            reason=f"ablating changes the loss by {gap:.3g} nats, under {SMALLEST_GAP}: nothing to recover",
        )
    value, error = ratio(sums[ablated] - sums[spliced], denominators)
    return metric_value(id, value, sums.n, stderr=error)
