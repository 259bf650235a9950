"""How often each latent fires. density_j = fraction of tokens with f_j != 0.

Over n tokens a density under 1/n cannot be told from zero: `dead-fraction` says "silent in n tokens" and nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from saebench.api.values import MetricResult
from saebench.metrics.accumulator import NO_TOKENS, StreamAccumulator, metric_value, nulls
from saebench.metrics.catalogue import DENSITY
from saebench.metrics.clusters import BlockCounts, ClusterRows, half_sample_error
from saebench.metrics.contexts import ContextCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.api.batches import ScoredBatch
    from saebench.api.codes import SparseCodes
    from saebench.api.metrics import Stream
    from saebench.api.values import MetricValue

    Floats = NDArray[np.float64]

ULTRALOW = 1e-5
ULTRALOW_TOKENS = 1_000_000
LOWEST_EXPONENT = -8
BINS_A_DECADE = 10


class DensityAccumulator(StreamAccumulator):
    """Firing counts of every latent on stream `density`, and what follows from them. Memory: 20 counts a latent.

    Its result also has details `density-histogram` and, where stream `eval` has token ids, `strongest-contexts`; and
    array `density [d_sae]` float32.
    """

    stream = "density"
    metrics = DENSITY

    def __init__(self, d_sae: int, absent: str | None = None) -> None:
        super().__init__(absent)
        self.d_sae = d_sae
        self._contexts = ContextCollector(d_sae)
        self._rows = ClusterRows()
        self._fired = BlockCounts(d_sae)
        self._tokens = BlockCounts(1)

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Take one batch of `density`, or of `eval` for the contexts."""
        if scored.codes is None:
            return
        if stream == self.stream:
            self.add(scored.codes, scored.batch.clusters)
        elif stream == "eval":
            self._contexts.update(scored.batch, scored.codes)

    def compute(self) -> MetricResult:
        """Every id, details and the array."""
        counted = self.absent is None and self.n_tokens > 0
        contexts = self._contexts.compute(self.density() if counted else None)
        details: dict[str, Any] = {"strongest-contexts": contexts} if contexts else {}
        values = super().compute().values
        if not counted:
            return MetricResult(values, details)
        details["density-histogram"] = self.histogram()
        return MetricResult(values, details, {"density": torch.from_numpy(self.density()).float()})

    def add(self, codes: SparseCodes, sequence_ids: Tensor | None = None) -> None:
        """Take the codes of B tokens, `sequence_ids [B]` or None.

        Raises:
            ValueError: The codes are of another number of latents.
        """
        if codes.d_sae != self.d_sae:
            raise ValueError(f"codes have {codes.d_sae} latents, expected {self.d_sae}")
        rows = self._rows(sequence_ids, codes.n_rows, codes.values.device)
        active = codes.values != 0
        self._fired.add(rows[codes.rows()[active]], codes.latents[active])
        self._tokens.add(rows, torch.zeros_like(rows))

    @property
    def n_tokens(self) -> int:
        """Tokens seen."""
        return int(self._tokens.blocks().sum())

    def density(self) -> Floats:
        """`[d_sae]` in [0, 1]; zeros where no token was seen."""
        return np.asarray(self._fired.blocks().sum(0) / max(self.n_tokens, 1))

    def statistic(
        self, function: Callable[[Floats], float | NDArray[np.bool_] | None]
    ) -> tuple[float | None, float | None]:
        """`function(density [d_sae])` and its standard error by half-samples of 20 blocks of documents.

        Where it gives an array, one bool a latent, the share of True is meant.
        """
        error = half_sample_error(
            lambda fired, n: function(fired / n), self._tokens.blocks()[:, 0], self._fired.blocks()
        )
        value = function(self.density())
        return None if value is None else float(np.mean(value)), error

    def values(self) -> dict[str, MetricValue]:
        """Every metric of this family by id.

        `dead-fraction` = #{density = 0} / d_sae; `ultralow-fraction` = #{0 < density < 1e-5} / d_sae (null under 1e6
        tokens, where such densities cannot be seen); `dense-fraction-T` = #{density > T} / d_sae; `dense-mass-10pct` =
        sum of densities over 0.10 / sum of all. A standard error says how far the value would move on other text of
        as many tokens, not how many of the silent latents more text would wake.
        """
        n = self.n_tokens
        if n == 0:
            return nulls(DENSITY, NO_TOKENS)
        few = f"densities under {ULTRALOW:g} need {ULTRALOW_TOKENS:,} tokens to be seen, there are {n:,}"
        values = {}
        for id, which in (
            ("dead-fraction", _silent),
            ("ultralow-fraction", _ultralow),
            ("dense-fraction-1pct", over(0.01)),
            ("dense-fraction-10pct", over(0.1)),
        ):
            if id == "ultralow-fraction" and n < ULTRALOW_TOKENS:
                values[id] = metric_value(id, None, n, reason=few)
                continue
            value, error = self.statistic(which)
            values[id] = metric_value(id, value, n, stderr=error)
        value, error = self.statistic(_dense_mass)
        values["dense-mass-10pct"] = metric_value(
            "dense-mass-10pct", value, n, stderr=error, reason="no latent ever fires" if value is None else None
        )
        return values

    def histogram(self) -> dict[str, Any]:
        """Latents by log10 density, in fixed bins, 10 a decade from 1e-8 to 1.

        Returns:
            `edges_log10` (81, from -8 to 0), `counts` (80; a bin holds its lower edge, the last one both, the first
            also all that is lower), `zero` (silent latents), `n_tokens`.
        """
        density = self.density()
        n_bins = -LOWEST_EXPONENT * BINS_A_DECADE
        # rounded, so that a density of exactly 10^e falls on its edge
        place = np.round((np.log10(density[density > 0]) - LOWEST_EXPONENT) * BINS_A_DECADE, 9)
        counts = np.bincount(np.clip(np.floor(place).astype(np.int64), 0, n_bins - 1), minlength=n_bins)
        return {
            "edges_log10": [(i + LOWEST_EXPONENT * BINS_A_DECADE) / BINS_A_DECADE for i in range(n_bins + 1)],
            "counts": counts.tolist(),
            "zero": int((density == 0).sum()),
            "n_tokens": self.n_tokens,
        }


def over(threshold: float) -> Callable[[Floats], NDArray[np.bool_]]:
    """`density [d_sae]` -> which latents have a density strictly over `threshold`."""
    return lambda density: density > threshold


def _silent(density: Floats) -> NDArray[np.bool_]:
    return np.equal(density, 0)


def _ultralow(density: Floats) -> NDArray[np.bool_]:
    return (density > 0) & (density < ULTRALOW)


def _dense_mass(density: Floats) -> float | None:
    total = float(density.sum())
    return float(density[density > 0.1].sum()) / total if total > 0 else None
