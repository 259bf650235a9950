"""Dataset `synthetic`: sparse features in superposition, with a dictionary that is known."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, DatasetContext, MachineError, SparseCodes, Split
from saebench_plugins.core_datasets.plugin import SyntheticOptions, synthetic_lack

GROUP = 8
"""Features that are correlated with each other, where features are."""
BLOCK_VALUES = 1 << 20
"""Feature draws made at a time. Fixed: rows must not depend on the batch size asked for."""


def _generator(*parts: str | int) -> torch.Generator:
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)


def firing_probabilities(n_features: int, active: float, zipf: float) -> Tensor:
    """`[n_features]` float64, falling as `i^-zipf`, summing to `active`, none above 1/2."""
    shape = torch.arange(1, n_features + 1, dtype=torch.float64) ** -zipf
    low, high = 0.0, float(n_features * active) / float(shape.min())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((middle * shape).clamp_max(0.5).sum()) < active else (low, middle)
    return (high * shape).clamp_max(0.5)


class SyntheticVectors:
    """`x = sum_i z_i d_i + noise`, z sparse and not negative, `d_i` random unit vectors.

    Feature i fires when a standard normal `g_i` exceeds the quantile `1 - p_i`; with correlation c, the `g_i` of one
    group of 8 share a part: `g_i = sqrt(c) u + sqrt(1 - c) v_i`, which leaves every `p_i` as it was. A firing feature's
    size is log-normal with median 1.
    """

    def __init__(self, options: SyntheticOptions) -> None:
        self.options = options
        self.d_in = options.d_in
        directions = torch.randn(
            options.n_features, options.d_in, generator=_generator(options.seed, "dictionary"), dtype=torch.float64
        )
        self._directions = (directions / directions.norm(dim=1, keepdim=True)).float()
        self.dictionary: Tensor | None = self._directions
        self.probabilities = firing_probabilities(options.n_features, options.active, options.zipf)
        order = torch.randperm(options.n_features, generator=_generator(options.seed, "order"))
        self.probabilities = self.probabilities[order]  # so that groups mix frequent and rare features
        self._thresholds = torch.special.ndtri(1 - self.probabilities).float()

    def n_tokens(self, split: Split) -> int | None:
        """Without end."""
        return None

    def batches(self, split: Split, n_tokens: int, batch: int, seed: int) -> Iterator[ActivationBatch]:
        """Exactly `n_tokens` vectors; another seed or part is another stream."""
        rows = max(1, BLOCK_VALUES // self.options.n_features)
        kept_x: list[Tensor] = []
        kept_z: list[Tensor] = []
        kept = made = number = 0
        while made < n_tokens or kept:
            while kept < batch and made < n_tokens:
                x, z = self._block(rows, _generator(self.options.seed, "draws", split, seed, number))
                take = min(rows, n_tokens - made)
                kept_x.append(x[:take])
                kept_z.append(z[:take])
                kept, made, number = kept + take, made + take, number + 1
            x, z = torch.cat(kept_x), torch.cat(kept_z)
            kept_x, kept_z, kept = [x[batch:]], [z[batch:]], max(0, len(x) - batch)
            yield ActivationBatch(x[:batch], x[:batch], truth=SparseCodes.from_dense(z[:batch]))

    def _block(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        options = self.options
        normal = torch.randn(rows, options.n_features, generator=generator)
        if options.correlation > 0:
            shared = torch.randn(rows, math.ceil(options.n_features / GROUP), generator=generator).repeat_interleave(
                GROUP, 1
            )[:, : options.n_features]
            normal = math.sqrt(options.correlation) * shared + math.sqrt(1 - options.correlation) * normal
        sizes = torch.exp(options.spread * torch.randn(rows, options.n_features, generator=generator))
        z = torch.where(normal > self._thresholds, sizes, 0.0)
        noise = torch.randn(rows, self.d_in, generator=generator) * (options.noise / math.sqrt(self.d_in))
        return z @ self._directions + noise, z

    def manifest(self) -> Mapping[str, Any]:
        """What is known of the features."""
        return {
            "n_features": self.options.n_features,
            "mean_l0": float(self.probabilities.sum()),
            "firing_probability": {"min": float(self.probabilities.min()), "max": float(self.probabilities.max())},
        }


def open_synthetic(options: SyntheticOptions, _context: DatasetContext) -> SyntheticVectors:
    """Makes the dictionary.

    Raises:
        MachineError: It needs more memory than the machine has.
    """
    if lack := synthetic_lack(options):
        raise MachineError(f"synthetic: {lack}")
    return SyntheticVectors(options)
