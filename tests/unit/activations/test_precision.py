"""What a storage precision loses, against values worked out apart."""

from __future__ import annotations

import pytest
import torch

from saebench.activations.precision import rounding, rounding_remark


def rows(scale=1.0, mean=0.0):
    return scale * torch.randn(4000, 8, generator=torch.Generator().manual_seed(0)) + mean


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_ordinary_rows_lose_nothing_worth_a_word(dtype):
    lost = rounding(rows(), dtype)
    assert lost["lost_variance"] < 1e-5
    assert rounding_remark(lost, "here") is None
    assert rounding(rows(), "float32") is None


@pytest.mark.parametrize(
    ("x", "dtype", "share"),
    [
        (rows(1e-6), "float16", 1.0),  # subnormal
        (rows(1e-9), "float16", 1.0),  # becomes 0
        (torch.cat([rows(1e-6)[:100], rows()[:3900]]), "float16", 0.025),
        (rows(1e-39), "bfloat16", 1.0),
    ],
)
def test_values_under_the_range_are_told(x, dtype, share):
    lost = rounding(x, dtype)
    assert lost["under_range"] == pytest.approx(share, abs=1e-3)
    assert f"as {dtype} they lose" in rounding_remark(lost, "here")


def test_zeros_are_no_loss():
    x = rows().relu()
    assert rounding_remark(rounding(x, "float16"), "here") is None
    assert rounding(torch.zeros(5, 3), "float16")["under_range"] == 0


@pytest.mark.parametrize(("dtype", "step"), [("float16", 4.0), ("bfloat16", 32.0)])
def test_a_far_mean_takes_the_variance(dtype, step):
    # at 5,000 the values are `step` apart: uniform errors have a variance of step² / 12
    spread = 100.0
    lost = rounding(rows(spread, 5000.0).clamp(4200, 5800), dtype)
    assert lost["lost_variance"] == pytest.approx(step**2 / 12 / spread**2, rel=0.1)
    assert rounding(rows(1.0, 5000.0), "bfloat16")["lost_variance"] > 0.9
