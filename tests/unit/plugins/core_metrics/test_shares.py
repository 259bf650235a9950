"""The array `variance-share` as the harness asks for it."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from saebench.api import ActivationBatch, CellMetricSpec, ScoredBatch, SparseCodes
from saebench.api.specs import resolve
from saebench_plugins.core_metrics.plugin import METRICS

D, N = 5, 8


class Sae:
    d_in, d_sae = D, N

    def __init__(self, seed: int = 0) -> None:
        self.W_dec: torch.Tensor | None = torch.randn(N, D, generator=torch.Generator().manual_seed(seed))
        self._rows = self.W_dec

    def encode(self, x: torch.Tensor) -> SparseCodes:
        return SparseCodes.from_dense((x @ self._rows.T / D - 0.2).clamp(min=0))

    def decode(self, codes: SparseCodes) -> torch.Tensor:
        return codes.to_dense() @ self._rows


def measured(sae: Sae, stream: str = "eval") -> dict[str, torch.Tensor]:
    spec = next(spec for spec in METRICS if spec.name == "latent-shares")
    assert isinstance(spec, CellMetricSpec)
    assert (spec.provides, spec.streams, spec.core) == ((), ("eval",), True)
    metric = resolve(spec.make)(SimpleNamespace(sae=sae))
    x = torch.randn(300, D, generator=torch.Generator().manual_seed(1))
    for piece in x.split(128):
        codes = sae.encode(piece)
        metric.update(stream, ScoredBatch(ActivationBatch(piece, piece), codes, sae.decode(codes)))
    result = metric.compute()
    assert result.values == {}
    assert result.details == {}
    return dict(result.arrays)


def test_one_array_and_nothing_else() -> None:
    arrays = measured(Sae())
    assert list(arrays) == ["variance-share"]
    assert arrays["variance-share"].shape == (N,)
    assert arrays["variance-share"].dtype == torch.float32
    assert bool((arrays["variance-share"] > 0).any())


def test_no_array_without_directions_or_tokens() -> None:
    sae = Sae()
    sae.W_dec = None
    assert measured(sae) == {}
    assert measured(Sae(), "density") == {}
