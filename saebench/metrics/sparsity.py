"""How many latents a token uses. A latent is active where its value is not zero; its sign does not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from saebench.metrics.accumulator import NO_TOKENS, StreamAccumulator, metric_value, nulls
from saebench.metrics.catalogue import SPARSITY
from saebench.metrics.clusters import BlockCounts, ClusterSums, add_rows, half_sample_error, integer_quantile_error

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.codes import SparseCodes
    from saebench.api.values import MetricValue

    Floats = NDArray[np.float64]

BITS_A_VALUE = 16
"""Of a value as a code is priced; `fvu-16bit` says what is left at that precision."""


class SparsityAccumulator(StreamAccumulator):
    """`l0`, its 5th and 95th percentiles over tokens, `l1`, and what a code costs in values and in bits, from one pass
    over stream `eval`.

    Memory: 6 bytes a token, 20 counts a latent.

    Args:
        decoder_norms: `[d_sae]` norms ||d_j|| that `l1` folds into the values, so that scaling a latent down and its
            decoder row up changes nothing. None: no `l1`.
    """

    metrics = SPARSITY

    def __init__(self, decoder_norms: Tensor | None = None, absent: str | None = None) -> None:
        super().__init__(absent)
        self._norms = None if decoder_norms is None else decoder_norms.detach().double()
        self._sums = ClusterSums("l0", "l1", "values")
        self._fired: BlockCounts | None = None
        self._tokens, self._n_side = BlockCounts(1), 0
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
        n_side = sum(side.numel() for side in codes.side.values()) // max(1, codes.n_rows)
        rows = self._sums.add(sequence_ids, l0=l0, l1=l1, values=l0 + n_side)
        if self._fired is None:
            self._fired, self._n_side = BlockCounts(codes.d_sae), n_side
        active = values != 0
        self._fired.add(rows[token[active]], codes.latents[active])
        self._tokens.add(rows, torch.zeros_like(rows))
        self._l0.append(l0.int())
        self._rows.append(rows.short())

    def values(self) -> dict[str, MetricValue]:
        """Every metric of this family by id.

        `l0` = mean_T #{j: f_j != 0}. `l0-p5`, `l0-p95`: quantiles over tokens, linear interpolation.
        `l1` = mean_T sum_j |f_j| ||d_j||. `values-per-token` = mean_T (#{j: f_j != 0} + side values).
        `bits-per-token` = sum_j H(p_j) + 16 * values-per-token, with p_j the density of latent j and H the binary
        entropy in bits: what an ideal code takes that knows the densities and takes latents to fire independently, and
        values at 16 bits. Latents that fire together cost less than it says.
        """
        sums = self._sums.collect()
        n = sums.n
        if n == 0:
            return nulls(SPARSITY, NO_TOKENS)
        values = {}
        for id, name in (("l0", "l0"), ("l1", "l1"), ("values-per-token", "values")):
            value, error = sums.mean(name)
            values[id] = metric_value(id, value, n, stderr=error)
        values["bits-per-token"] = self._bits(n)
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

    def _bits(self, n: int) -> MetricValue:
        """`bits-per-token`, its standard error from half-samples of blocks of documents."""
        assert self._fired is not None
        fired, tokens = self._fired.blocks(), self._tokens.blocks()[:, 0]

        def bits(counts: Floats, n: float) -> float:
            density = counts / n
            return float(binary_entropy(density).sum() + BITS_A_VALUE * (density.sum() + self._n_side))

        error = half_sample_error(bits, tokens, fired)
        return metric_value("bits-per-token", bits(fired.sum(0), tokens.sum()), n, stderr=error)


def binary_entropy(p: Floats) -> Floats:
    """Bits that say whether an event of probability `p` happened; 0 where that is certain."""
    found: Floats = np.zeros_like(p)
    open_ = (p > 0) & (p < 1)
    q = p[open_]
    found[open_] = -(q * np.log2(q) + (1 - q) * np.log2(1 - q))
    return found
