"""What each latent contributes to the variance that an SAE explains."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saebench.api.values import MetricResult
from saebench.metrics.clusters import origin_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.codes import SparseCodes
    from saebench.api.metrics import Stream

LINEAR_TOLERANCE = 1e-3
"""Relative error up to which a decoder counts as linear in the codes: far over float32's rounding, far under any real
effect."""
_NO_VARIATION = 1e-14
"""Variance under this share of the mean squared distance from 0 is float rounding, not variation."""


class VarianceShareAccumulator:
    """Share of the explained variance that goes when one latent is silenced and the others stay as they are.

    With e = x - x_hat and x_hat linear in the codes, silencing latent j on token t adds f_tj d_j to e. So the squared
    error grows by sum_t (2 f_tj <e_t, d_j> + f_tj^2 ||d_j||^2). The share is this over what the SAE explains,
    sum_t (||x_t - mu||^2 - ||e_t||^2). Shares of latents that work together need not sum to 1; a latent that does harm
    has a negative one. Our own definition: the leave-one-out form of variance explained.

    Sums are float64; the tokens' part of the first one is taken inside the product, <sum_t f_tj e_t, d_j>, so that a
    batch costs about a decoding. Memory: `[d_sae]` and `[d_out]` sums, and of a batch one row a latent that fires in
    it.

    A `CellMetric` on stream `eval` without ids: array `variance-share [d_sae]` float32, where there are shares.

    Args:
        sae: With `decode`.
        directions: `[d_sae, d_out]` that each latent writes, in the units of the activations. None: not known, so no
            shares.
    """

    def __init__(self, sae: Any, directions: NDArray[np.float64] | None) -> None:
        self._linear: bool | None = None if directions is not None else False
        if directions is None:
            directions = np.zeros((0, 0))
        self._sae, self._directions = sae, torch.from_numpy(np.ascontiguousarray(directions))
        self._norms = (directions * directions).sum(1)
        self._growth = np.zeros(len(directions))
        self._origin: Tensor | None = None
        self._sum: NDArray[np.float64] | None = None
        self._energy = self._distance = self._error = 0.0
        self._n = 0

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `eval`."""
        if stream == "eval" and scored.codes is not None and scored.x_hat is not None:
            self.add(scored.batch.target, scored.x_hat, scored.codes)

    def compute(self) -> MetricResult:
        """The array alone."""
        shares = self.shares()
        return MetricResult({}, arrays={} if shares is None else {"variance-share": torch.from_numpy(shares).float()})

    @torch.no_grad()
    def add(self, x: Tensor, x_hat: Tensor, codes: SparseCodes) -> None:
        """Take B tokens: `x`, `x_hat` `[B, d_out]` in the same units, and the codes behind `x_hat`."""
        if x.shape[0] == 0 or self._linear is False:
            return
        codes, x, x_hat = codes.nonzero(), x.double(), x_hat.double()
        error = x - x_hat
        self._directions = self._directions.to(x.device)
        if self._linear is None and codes.values.numel():
            self._linear = self._is_linear(x_hat, codes)
        values, order = codes.values.double(), codes.latents.argsort(stable=True)
        fired = codes.latents.bincount(minlength=codes.d_sae)
        active = fired.nonzero().squeeze(1)
        pulls = _sums(error, codes.rows()[order], values[order], fired[active])
        rows = self._directions[active]
        squares = np.bincount(codes.latents.cpu().numpy(), values.square().cpu().numpy(), len(self._growth))
        self._growth += squares * self._norms
        self._growth[active.cpu().numpy()] += 2 * (pulls * rows).sum(1).cpu().numpy()
        self._take(x, error)

    def shares(self) -> NDArray[np.float64] | None:
        """`[d_sae]`, 0 for silent latents.

        None where x_hat is no sum of `directions` (beside a part that codes do not change), where
        nothing fired, and where no variance is explained."""
        if not self._linear or self._sum is None:
            return None
        variance = self._distance - float(self._sum @ self._sum) / self._n
        explained = variance - self._error
        if not explained > _NO_VARIATION * (self._distance + self._energy):
            return None
        return self._growth / explained

    def _take(self, x: Tensor, error: Tensor) -> None:
        """Sums squared distances about an origin near mu: a mean much larger than the spread then costs no digits."""
        if self._origin is None:
            self._origin = origin_of(x)
        centred = x - self._origin
        total = centred.sum(0).cpu().numpy()
        self._sum = total if self._sum is None else self._sum + total
        self._distance += float(centred.square().sum())
        self._energy += float(x.square().sum())
        self._error += float(error.square().sum())
        self._n += x.shape[0]

    def _is_linear(self, x_hat: Tensor, codes: SparseCodes) -> bool:
        """Whether `x_hat` is what `decode` gives without codes, plus the sum of the active latents' rows."""
        silent = replace(
            codes, values=codes.values[:0], latents=codes.latents[:0], offsets=torch.zeros_like(codes.offsets)
        )
        written = x_hat - self._sae.decode(silent).double()
        added = _sums(self._directions, codes.latents, codes.values.double(), codes.offsets.diff())
        return float((written - added).norm()) <= LINEAR_TOLERANCE * float(written.norm())


def _sums(rows: Tensor, indices: Tensor, weights: Tensor, counts: Tensor) -> Tensor:
    """`[len(counts), d]`: sums of `weights * rows[indices]` over runs of so many entries."""
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    return torch.nn.functional.embedding_bag(
        indices, rows, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
