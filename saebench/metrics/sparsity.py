"""How many latents a token uses. A latent is active where its value is not zero; its sign does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from saebench.metrics.accumulator import NO_TOKENS, StreamAccumulator, metric_value, nulls
from saebench.metrics.catalogue import SPARSITY
from saebench.metrics.clusters import BlockCounts, ClusterSums, add_rows, integer_quantile_error

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.codes import SparseCodes
    from saebench.api.values import MetricValue


class SparsityAccumulator(StreamAccumulator):
    """`l0`, its 5th and 95th percentiles over tokens, and `l1`, from one pass over stream `eval`.

    Memory: 6 bytes a token.

    Args:
        decoder_norms: `[d_sae]` norms ||d_j|| that `l1` folds into the values, so that scaling a latent down and its
            decoder row up changes nothing. None: no `l1`.
    """

    metrics = SPARSITY

    def __init__(self, decoder_norms: Tensor | None = None, absent: str | None = None) -> None:
        super().__init__(absent)
        self._norms = None if decoder_norms is None else decoder_norms.detach().double()
        self._sums = ClusterSums("l0", "l1")
        self._l0: list[Tensor] = []
        self._rows: list[Tensor] = []

    def take(self, scored: ScoredBatch) -> None:
        """Add one batch of the stream."""
        if scored.codes is not None:
            self.add(scored.codes, scored.batch.clusters)

    def add(self, codes: SparseCodes, sequence_ids: Tensor | None = None) -> None:
        """Take the codes of B tokens, `sequence_ids [B]` or None."""
        values, token = codes.values.detach().double().abs(), codes.rows()
        l0 = token.new_zeros(codes.n_rows).index_add_(0, token, (values != 0).long())
        l1 = values.new_zeros(codes.n_rows)
        if self._norms is not None:
            self._norms = self._norms.to(values.device)
            add_rows(l1, token, values * self._norms[codes.latents])
        rows = self._sums.add(sequence_ids, l0=l0, l1=l1)
        self._l0.append(l0.int())
        self._rows.append(rows.short())

    def values(self) -> dict[str, MetricValue]:
        """Every metric of this family by id.

        `l0` = mean_T #{j: f_j != 0}. `l0-p5`, `l0-p95`: quantiles over tokens, linear interpolation.
        `l1` = mean_T sum_j |f_j| ||d_j||.
        """
        sums = self._sums.collect()
        n = sums.n
        if n == 0:
            return nulls(SPARSITY, NO_TOKENS)
        values = {}
        for id in ("l0", "l1"):
            value, error = sums.mean(id)
            values[id] = metric_value(id, value, n, stderr=error)
        if self._norms is None:
            values["l1"] = metric_value(
                "l1", None, n, reason="the decoder directions are not known, so their norms cannot be folded in"
            )
        l0 = torch.cat(self._l0).long()
        blocks = BlockCounts(int(l0.max()) + 1)
        blocks.add(torch.cat(self._rows).long(), l0)
        l0_values = l0.cpu().numpy()
        for id, q in (("l0-p5", 0.05), ("l0-p95", 0.95)):
            error = integer_quantile_error(blocks.blocks(), q)
            values[id] = metric_value(id, float(np.quantile(l0_values, q)), n, stderr=error)
        return {info.id: values[info.id] for info in SPARSITY}
