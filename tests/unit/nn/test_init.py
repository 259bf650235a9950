"""Initialisation: medians, variances, quantiles."""

from __future__ import annotations

import pytest
import torch

from saebench.nn import geometric_median, tied_init, total_variance, unit_rows_, upper_quantile


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_geometric_median_of_a_line_is_the_median() -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]])
    torch.testing.assert_close(
        geometric_median(x, tol=1e-12, max_steps=5000), torch.tensor([1.0, 0.0]), atol=1e-4, rtol=0
    )


def test_geometric_median_has_no_descent_direction() -> None:
    x = torch.randn(300, 4, generator=gen(), dtype=torch.float64) ** 3
    median = geometric_median(x, tol=1e-13, max_steps=2000).requires_grad_()
    (x - median).norm(dim=1).sum().backward()
    assert median.grad is not None
    assert float(median.grad.norm()) < 1e-5


def test_geometric_median_resists_outliers_and_moves_with_the_data() -> None:
    x = torch.randn(500, 3, generator=gen())
    spoiled = x.clone()
    spoiled[:5] = 1e6
    assert float((geometric_median(spoiled) - geometric_median(x)).norm()) < 0.1
    torch.testing.assert_close(geometric_median(x + 7), geometric_median(x) + 7, atol=1e-5, rtol=0)


def test_geometric_median_of_equal_points_and_of_none() -> None:
    assert geometric_median(torch.full((4, 2), 3.0)).tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match="no samples"):
        geometric_median(torch.zeros(0, 2))


def test_total_variance_by_hand() -> None:
    assert total_variance(torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 3.0], [2.0, -3.0]])) == pytest.approx(5.0)


@pytest.mark.cpu("weights are drawn on the processor, so that a seed means the same weights everywhere")
def test_unit_rows_and_tied_init() -> None:
    W_enc, W_dec = tied_init(20, 7, gen())
    assert torch.equal(W_enc, W_dec)
    assert W_enc.data_ptr() != W_dec.data_ptr()
    torch.testing.assert_close(W_dec.norm(dim=1), torch.ones(20))
    assert torch.equal(tied_init(20, 7, gen())[0], W_enc)
    torch.testing.assert_close(
        unit_rows_(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([[0.6, 0.8], [0.0, 0.0]])
    )


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5])
def test_upper_quantile_leaves_the_fraction_above(fraction: float) -> None:
    x, W, b = (
        torch.randn(1000, 6, generator=gen()),
        torch.randn(9, 6, generator=gen(1)),
        torch.randn(9, generator=gen(2)),
    )
    theta = upper_quantile(x, W, b, fraction, block=3000)
    above = (x @ W.T + b > theta).sum(0)
    assert above.tolist() == [round(1000 * fraction)] * 9


def test_upper_quantile_thins_a_long_sample() -> None:
    x = torch.randn(20_000, 3, generator=gen())
    W, b = torch.eye(3), torch.zeros(3)
    thinned = upper_quantile(x, W, b, 0.1, enough=100)
    torch.testing.assert_close(thinned, upper_quantile(x[::5], W, b, 0.1))
    assert ((x > thinned).float().mean(0) - 0.1).abs().max() < 0.02
