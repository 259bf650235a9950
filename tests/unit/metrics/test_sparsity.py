"""Sparsity metrics."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from saebench.api import SparseCodes
from saebench.metrics.sparsity import SparsityAccumulator


def dense(n: int = 400, d_sae: int = 30) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    z = torch.randn(n, d_sae, generator=rng)
    return torch.where(torch.rand(n, d_sae, generator=rng) < torch.rand(n, 1, generator=rng) / 2, z, 0.0)


def test_equals_the_dense_reference_in_any_batching() -> None:
    z, ids, norms = dense(), torch.arange(400) // 20, torch.linspace(0.5, 2, 30)
    for batch in (1, 33, 400):
        sums = SparsityAccumulator(norms)
        for piece in torch.randperm(400, generator=torch.Generator().manual_seed(batch)).split(batch):
            sums.add(SparseCodes.from_dense(z[piece]), ids[piece])
        values = {id: value.value for id, value in sums.values().items()}
        p = (z != 0).double().mean(0)
        entropy = -(p * p.log2() + (1 - p) * (1 - p).log2()).sum().item()
        l0 = (z != 0).sum(1).double()
        expected = {
            "l0": l0.mean().item(),
            "l0-p5": torch.quantile(l0, 0.05).item(),
            "l0-p95": torch.quantile(l0, 0.95).item(),
            "l1": (z.double().abs() * norms.double()).sum(1).mean().item(),
            "values-per-token": l0.mean().item(),
            "bits-per-token": entropy + 16 * l0.mean().item(),
        }
        assert values == pytest.approx(expected, rel=1e-12)
        assert (sums.values()["l0"].stderr or 0) > 0


def test_l1_does_not_feel_how_scale_is_split_between_value_and_decoder() -> None:
    codes, norms = SparseCodes.from_dense(dense()), torch.linspace(0.5, 2, 30).double()
    moved = replace(codes, values=codes.values.double() * norms[codes.latents])
    one, other = SparsityAccumulator(norms), SparsityAccumulator(torch.ones(30))
    one.add(codes)
    other.add(moved)
    assert one.values()["l1"].value == pytest.approx(other.values()["l1"].value, rel=1e-12)


def test_topk_is_exact() -> None:
    codes = SparseCodes.from_topk(torch.ones(64, 5), torch.arange(5).expand(64, 5), 9)
    sums = SparsityAccumulator(torch.ones(9))
    sums.add(codes)
    assert {id: (v.value, v.stderr) for id, v in sums.values().items()} == dict.fromkeys(
        ("l0", "l0-p5", "l0-p95", "l1", "values-per-token"), (5.0, 0.0)
    ) | {"bits-per-token": (80.0, 0.0)}


def test_degenerate() -> None:
    assert all(v.reason == "no tokens were seen" for v in SparsityAccumulator(torch.ones(3)).values().values())
    silent = SparsityAccumulator()
    silent.add(SparseCodes.from_dense(torch.zeros(6, 3)))
    values = silent.values()
    assert (values["l0"].value, values["l0-p95"].value) == (0, 0)
    assert values["l1"].value is None
    assert "decoder directions" in (values["l1"].reason or "")
