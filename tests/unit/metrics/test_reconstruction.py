"""Reconstruction metrics: invariances, known answers, degenerate input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from saebench.api import MetricValue
from saebench.metrics.catalogue import RECONSTRUCTION, ROUNDED
from saebench.metrics.reconstruction import (
    CosineAccumulator,
    FvuAccumulator,
    L2RatioAccumulator,
    MedianTokenFvuAccumulator,
    MseAccumulator,
    ReconstructionAccumulator,
    RelativeBiasAccumulator,
    VarianceExplainedAccumulator,
)


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(640, 8, generator=rng) * torch.arange(1.0, 9.0) + 3
    return x, x + 0.5 * torch.randn(640, 8, generator=rng), torch.arange(640) // 16


def measure(x: Tensor, x_hat: Tensor, ids: Tensor | None = None, batch: int | None = None) -> dict[str, MetricValue]:
    sums = ReconstructionAccumulator(x.shape[1])
    for piece in torch.arange(len(x)).split(batch or len(x)):
        sums.add(x[piece], x_hat[piece], None if ids is None else ids[piece])
    return sums.values()


def reference(x: Tensor, x_hat: Tensor) -> dict[str, float]:
    """Slow and obvious, in float64."""
    a, b = x.double().numpy(), x_hat.double().numpy()
    error, spread = ((a - b) ** 2).sum(1), ((a - a.mean(0)) ** 2).sum(1)
    norm, norm_hat = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    return {
        "fvu": error.sum() / spread.sum(),
        "variance-explained": 1 - error.sum() / spread.sum(),
        "mse": error.mean(),
        "fvu-median-token": np.median(error) / spread.mean(),
        "cosine": np.mean([p @ q / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a, b, strict=True)]),
        "l2-ratio": np.mean(norm_hat / norm),
        "relative-bias": (b**2).sum() / (a * b).sum(),
    }


def test_equals_the_reference(data: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat, ids = data
    for id, value in reference(x, x_hat).items():
        assert measure(x, x_hat, ids)[id].value == pytest.approx(
            value, rel=1e-6 if id == "fvu-median-token" else 1e-12
        ), id


@pytest.mark.parametrize("batch", [1, 7, 100, 640])
def test_batch_size_and_order_do_not_matter(data: tuple[Tensor, Tensor, Tensor], batch: int) -> None:
    x, x_hat, ids = data
    order = torch.randperm(640, generator=torch.Generator().manual_seed(5))
    whole, shuffled = measure(x, x_hat, ids), measure(x[order], x_hat[order], ids[order], batch)
    for id, value in whole.items():
        assert shuffled[id].value == pytest.approx(value.value, rel=1e-12), id
        assert shuffled[id].stderr == pytest.approx(value.stderr, rel=1e-9), id


def test_perfect_and_mean_reconstruction(data: tuple[Tensor, Tensor, Tensor]) -> None:
    x = data[0].double()
    perfect = {id: value.value for id, value in measure(x, x).items()}
    assert perfect == pytest.approx(
        {
            "fvu": 0,
            "variance-explained": 1,
            "mse": 0,
            "fvu-median-token": 0,
            "cosine": 1,
            "l2-ratio": 1,
            "relative-bias": 1,
        },
        abs=1e-14,
    )
    mean = measure(x, x.mean(0).expand_as(x))
    assert mean["fvu"].value == pytest.approx(1, rel=1e-14)
    assert mean["variance-explained"].value == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e5])
def test_predicting_the_mean_explains_nothing_however_large_it_is(offset: float) -> None:
    # squares where means belong give 0.8 here; per-element centring on one scalar gives almost 1
    rng = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 16, generator=rng, dtype=torch.float64) + offset * torch.linspace(
        -1, 3, 16, dtype=torch.float64
    )
    assert measure(x, x.mean(0).expand_as(x), batch=500)["variance-explained"].value == pytest.approx(0, abs=1e-9)
    half = x.mean(0) + (x - x.mean(0)) / 2
    assert measure(x, half, batch=500)["fvu"].value == pytest.approx(1 / 4, rel=1e-9)


def test_a_constant_error_is_not_forgiven() -> None:
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = (x - x.mean(0)) / x.std(0, unbiased=False)
    assert measure(x, x + 0.5)["fvu"].value == pytest.approx(0.25, rel=1e-12)


def test_scale_shift_and_rotation(data: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat = data[0].double(), data[1].double()
    base = measure(x, x_hat)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    cases = {
        "scale": (
            measure(7 * x, 7 * x_hat),
            {"fvu", "variance-explained", "fvu-median-token", "cosine", "l2-ratio", "relative-bias"},
        ),
        "shift": (measure(x + 9, x_hat + 9), {"fvu", "variance-explained", "fvu-median-token", "mse"}),
        "rotation": (measure(x @ rotation, x_hat @ rotation), set(base)),
    }
    for name, (changed, unchanged) in cases.items():
        for id in unchanged:
            assert changed[id].value == pytest.approx(base[id].value, rel=2e-7 if "median" in id else 1e-10), (name, id)
    assert cases["scale"][0]["mse"].value == pytest.approx(49 * (base["mse"].value or 0), rel=1e-10)


def test_shrinkage_shows() -> None:
    x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = measure(x, 0.5 * x)
    assert values["relative-bias"].value == pytest.approx(0.5)
    assert values["l2-ratio"].value == pytest.approx(0.5)
    assert values["cosine"].value == pytest.approx(1)


def test_one_extreme_token_moves_the_mean_but_not_the_median() -> None:
    x = torch.randn(1001, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x_hat = x + 0.1
    usual = measure(x, x_hat)
    x_hat[0] += 1000
    extreme = measure(x, x_hat)
    assert (extreme["fvu"].value or 0) > 100
    assert extreme["fvu-median-token"].value == pytest.approx(usual["fvu-median-token"].value, rel=1e-6)


def test_degenerate_input() -> None:
    empty = ReconstructionAccumulator(3).values()
    assert set(empty) == {info.id for info in RECONSTRUCTION + ROUNDED}
    assert all(
        value.value is None and value.reason == "no tokens were seen" and value.n == 0 for value in empty.values()
    )

    constant = measure(torch.full((50, 3), 0.1), torch.zeros(50, 3), batch=7)
    assert constant["fvu"].value is None
    assert "do not vary" in (constant["fvu"].reason or "")
    assert constant["fvu-median-token"].value is None
    assert constant["mse"].value == pytest.approx(0.03, rel=1e-6)
    assert constant["cosine"].value == 0
    assert constant["l2-ratio"].value == 0
    assert constant["relative-bias"].value is None

    nothing = measure(torch.zeros(5, 3), torch.zeros(5, 3))
    assert nothing["l2-ratio"].reason == "every activation is zero"

    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    broken = x.clone()
    broken[2, 0], broken[3, 1] = torch.nan, torch.inf
    for value in measure(x, broken).values():
        assert value.value is None
        assert "not finite for 2 of 5 tokens" in (value.reason or "")
    lone = measure(x[:1], x[:1] * 2)["mse"]
    assert lone.value is not None
    assert lone.stderr is None


def test_single_accumulators_agree_with_the_joint_one(data: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat, ids = data
    joint = measure(x, x_hat, ids)
    accumulators = (
        FvuAccumulator,
        VarianceExplainedAccumulator,
        MseAccumulator,
        MedianTokenFvuAccumulator,
        CosineAccumulator,
        L2RatioAccumulator,
        RelativeBiasAccumulator,
    )
    for info, accumulator in zip(RECONSTRUCTION, accumulators, strict=True):
        single = accumulator(8)
        single.update(x, x_hat, ids)
        assert single.compute() == joint[info.id]
        assert (joint[info.id].unit, joint[info.id].direction) == (info.unit, info.direction)


def test_updating_goes_on_after_compute(data: tuple[Tensor, Tensor, Tensor]) -> None:
    x, x_hat, _ = data
    sums = FvuAccumulator(8)
    sums.update(x[:300], x_hat[:300])
    sums.compute()
    sums.update(x[300:], x_hat[300:])
    assert sums.compute().value == pytest.approx(measure(x, x_hat)["fvu"].value, rel=1e-12)


def test_wrong_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"must both be \[B, 3\]"):
        FvuAccumulator(3).update(torch.zeros(2, 4), torch.zeros(2, 4))


def test_half_precision_input_is_summed_in_double() -> None:
    x = torch.randn(3000, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    value = measure(x, x * 0.5, batch=100)["mse"].value
    assert value == pytest.approx(float(((x.double() - (x * 0.5).double()) ** 2).sum(1).mean()), rel=1e-12)
