"""How well x_hat gives back x. x, x_hat `[B, d_in]`; e = x - x_hat; T all tokens seen; mu = mean of x over T.

Published "explained variances" differ in where they centre and what they average (SAEs report at least six forms). Ours
is the one of Gemma Scope and of the TopK paper: pooled over tokens, centred on each coordinate's mean over T. So
predicting mu gives exactly 0, whatever the size of mu, and a perfect reconstruction gives 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from saebench.metrics.accumulator import NO_TOKENS, StreamAccumulator, metric_value
from saebench.metrics.catalogue import RECONSTRUCTION, ROUNDED
from saebench.metrics.clusters import ClusterSums, Collected, origin_of, quantile, ratio

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.values import MetricValue

DIVERGED_FVU = 10.0
"""An SAE whose FVU ends over this has diverged: predicting the mean gives 1, and weights of zero about as little."""
_NO_VARIATION = 1e-14
"""Variance under this share of the mean squared distance from 0 is float rounding, not variation."""


class ReconstructionSums:
    """What every reconstruction metric is made of, gathered in one pass.

    Squared distances from mu are summed about an origin near it (a median of some first tokens) and moved to mu at the
    end, so that a mean much larger than the spread costs no digits. Memory: per-cluster sums `[4093, d_in + 10]` and 6
    bytes a token.

    Args:
        d_in: Width of x. None: the first batch's.
    """

    def __init__(self, d_in: int | None = None) -> None:
        self.d_in = d_in
        self._origin: Tensor | None = None
        self._sums = ClusterSums(
            "error", "energy", "x", "x_hat", "dot", "cosine", "norm_ratio", "nonzero", "unfit", "error_16bit"
        )
        self._has_16bit = False
        self._errors: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._collected: Collected | None = None

    def add(
        self, x: Tensor, x_hat: Tensor, sequence_ids: Tensor | None = None, x_hat_16bit: Tensor | None = None
    ) -> None:
        """Take B tokens: `x`, `x_hat` `[B, d_in]` in the same units; `sequence_ids [B]` int, not negative, or None;
        `x_hat_16bit` like `x_hat`, for all batches or for none.

        Raises:
            ValueError: A shape is wrong.
        """
        if self.d_in is None:
            self.d_in = x.shape[-1]
        if x.shape != x_hat.shape or x.ndim != 2 or x.shape[1] != self.d_in:
            raise ValueError(f"x and x_hat must both be [B, {self.d_in}], got {list(x.shape)} and {list(x_hat.shape)}")
        if x.shape[0] == 0:
            return
        self._collected = None
        x, x_hat = x.detach().double(), x_hat.detach().double()
        if self._origin is None:
            self._origin = origin_of(x)
        centred, error = x - self._origin, x - x_hat
        error_sq, x_sq, x_hat_sq, dot = _dots(error, error), _dots(x, x), _dots(x_hat, x_hat), _dots(x, x_hat)
        nonzero = x_sq > 0
        x_norm, x_hat_norm = x_sq.sqrt(), x_hat_sq.sqrt()
        product = x_norm * x_hat_norm
        rows = self._sums.add(
            sequence_ids,
            vectors=centred,
            error=error_sq,
            energy=_dots(centred, centred),
            x=x_sq,
            x_hat=x_hat_sq,
            dot=dot,
            cosine=torch.where(product > 0, (dot / product).clamp(-1, 1), 0.0),
            norm_ratio=torch.where(nonzero, x_hat_norm / x_norm, 0.0),
            nonzero=nonzero,
            unfit=~error_sq.isfinite(),
            error_16bit=torch.zeros_like(error_sq) if x_hat_16bit is None else (x - x_hat_16bit).square().sum(1),
        )
        self._has_16bit = x_hat_16bit is not None
        self._errors.append(error_sq.float())
        self._rows.append(rows.short())

    def fvu(self) -> MetricValue:
        """sum_T ||e||^2 / sum_T ||x - mu||^2, in [0, inf). Null where x does not vary."""
        value, error, reason = self._fvu()
        return metric_value("fvu", value, self._sums_now.n, stderr=error, reason=reason)

    def variance_explained(self) -> MetricValue:
        """1 - fvu, in (-inf, 1]. Null where x does not vary."""
        value, error, reason = self._fvu()
        return metric_value(
            "variance-explained", None if value is None else 1 - value, self._sums_now.n, stderr=error, reason=reason
        )

    def mse(self) -> MetricValue:
        """sum_T ||e||^2 / |T|: summed over coordinates, averaged over tokens."""
        return self._ratio("mse", "error", "count")

    def fvu_median_token(self) -> MetricValue:
        """median_T ||e||^2 / (sum_T ||x - mu||^2 / |T|), in [0, inf): fvu without the pull of extreme tokens.

        Per-token errors are kept in float32. The standard error counts the denominator as known. Null where x does not
        vary.
        """
        variance = self._variance()
        if isinstance(variance, str):
            return metric_value("fvu-median-token", None, self._sums_now.n, reason=variance)
        mean = float(variance.sum()) / self._sums_now.n
        errors, rows = torch.cat(self._errors).cpu().numpy(), torch.cat(self._rows).cpu().numpy()
        value, error = quantile(errors.astype(np.float64), rows, 0.5)
        return metric_value(
            "fvu-median-token", value / mean, self._sums_now.n, stderr=None if error is None else error / mean
        )

    def cosine(self) -> MetricValue:
        """mean_T <x, x_hat> / (||x|| ||x_hat||), in [-1, 1]; 0 for a token where either vector is zero."""
        return self._ratio("cosine", "cosine", "count")

    def l2_ratio(self) -> MetricValue:
        """mean of ||x_hat|| / ||x|| over the tokens whose x is not zero."""
        return self._ratio("l2-ratio", "norm_ratio", "nonzero", "every activation is zero")

    def relative_bias(self) -> MetricValue:
        """sum_T ||x_hat||^2 / sum_T <x, x_hat> (Rajamanoharan et al. 2024, Gated SAEs, eq. 10), pooled.

        1 for an unbiased reconstruction, under 1 for one that shrinks. Null where sum <x, x_hat> is not positive.
        """
        reason = "sum <x, x_hat> is not positive: the reconstruction does not point along the activations"
        return self._ratio("relative-bias", "x_hat", "dot", reason)

    def fvu_16bit(self) -> MetricValue:
        """As `fvu`, with the reconstructions from codes that were rounded to bfloat16."""
        value, error, reason = self._fvu("error_16bit")
        return metric_value("fvu-16bit", value, self._sums_now.n, stderr=error, reason=reason)

    @property
    def _sums_now(self) -> Collected:
        if self._collected is None:
            self._collected = self._sums.collect()
        return self._collected

    def _unusable(self) -> str | None:
        """Why nothing can be computed, or None."""
        n_unfit = round(float(self._sums_now["unfit"].sum()))
        if n_unfit:
            return f"activation or reconstruction is not finite for {n_unfit} of {self._sums_now.n} tokens"
        return None if self._sums_now.n else NO_TOKENS

    def _ratio(self, id: str, numerator: str, denominator: str, reason: str = NO_TOKENS) -> MetricValue:
        """Ratio of two sums; null where the lower one is not positive."""
        sums = self._sums_now
        unusable = self._unusable()
        denominators = sums.count if denominator == "count" else sums[denominator]
        if unusable or float(denominators.sum()) <= 0:
            return metric_value(id, None, sums.n, reason=unusable or reason)
        value, error = ratio(sums[numerator], denominators)
        return metric_value(id, value, sums.n, stderr=error)

    def _variance(self) -> NDArray[np.float64] | str:
        """sum of ||x - mu||^2 by cluster `[G]`, or why there is none.

        About the origin o, with delta = mu - o: ||x - mu||^2 = ||x - o||^2 - 2 <x - o, delta> + ||delta||^2.
        """
        sums = self._sums_now
        unusable = self._unusable()
        if unusable:
            return unusable
        delta = sums.vectors.sum(0) / sums.n
        by_cluster = sums["energy"] - 2 * (sums.vectors @ delta) + sums.count * float(delta @ delta)
        if float(by_cluster.sum()) <= _NO_VARIATION * float(sums["energy"].sum() + sums["x"].sum()):
            return "the activations do not vary, so there is no variance to explain"
        return np.asarray(by_cluster)

    def _fvu(self, error: str = "error") -> tuple[float | None, float | None, str | None]:
        """Value, standard error, reason. mu moves with the sample; to first order the denominator does not feel it."""
        variance = self._variance()
        if isinstance(variance, str):
            return None, None, variance
        return *ratio(self._sums_now[error], variance), None


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)


class ReconstructionAccumulator(ReconstructionSums, StreamAccumulator):
    """All reconstruction metrics: x_hat against the site's target, on stream `eval`.

    The value of `fvu-median-token` is the method `fvu_median_token`, and so for each id.
    """

    metrics = RECONSTRUCTION + ROUNDED

    def __init__(self, d_in: int | None = None, absent: str | None = None) -> None:
        ReconstructionSums.__init__(self, d_in)
        StreamAccumulator.__init__(self, absent)

    def take(self, scored: ScoredBatch) -> None:
        """Add one batch of the stream."""
        if scored.x_hat is not None:
            self.add(scored.batch.target, scored.x_hat, scored.batch.clusters, scored.x_hat_16bit)

    def values(self) -> dict[str, MetricValue]:
        """Every id, from what was added so far; `fvu-16bit` where it was given what that needs."""
        given = self.metrics if self._has_16bit or not self._sums_now.n else RECONSTRUCTION
        return {info.id: getattr(self, info.id.replace("-", "_"))() for info in given}


class SingleMetric(ReconstructionSums):
    """One of the metrics alone: `.update(x, x_hat)` for each batch, then `.compute()`."""

    update = ReconstructionSums.add


class FvuAccumulator(SingleMetric):
    """`fvu`."""

    compute = ReconstructionSums.fvu


class VarianceExplainedAccumulator(SingleMetric):
    """`variance-explained`."""

    compute = ReconstructionSums.variance_explained


class MseAccumulator(SingleMetric):
    """`mse`."""

    compute = ReconstructionSums.mse


class MedianTokenFvuAccumulator(SingleMetric):
    """`fvu-median-token`."""

    compute = ReconstructionSums.fvu_median_token


class CosineAccumulator(SingleMetric):
    """`cosine`."""

    compute = ReconstructionSums.cosine


class L2RatioAccumulator(SingleMetric):
    """`l2-ratio`."""

    compute = ReconstructionSums.l2_ratio


class RelativeBiasAccumulator(SingleMetric):
    """`relative-bias`."""

    compute = ReconstructionSums.relative_bias
