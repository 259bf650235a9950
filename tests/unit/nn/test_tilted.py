"""TERM weights against autograd through the objective itself."""

from __future__ import annotations

import math

import pytest
import torch

from saebench.nn import effective_sample_size, term_weights


def losses(n: int = 50) -> torch.Tensor:
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1


@pytest.mark.parametrize("tilt", [1e-3, 1.0, 20.0])
def test_weights_are_the_gradient_of_the_tilted_risk(tilt: float) -> None:
    l = losses().requires_grad_()  # noqa: E741
    relative = l / l.detach().mean()
    objective = (torch.logsumexp(tilt * relative, 0) - math.log(len(l))) / tilt
    objective.backward()
    assert l.grad is not None
    torch.testing.assert_close(term_weights(l.detach(), tilt), l.grad * l.detach().mean())


def test_zero_tilt_is_the_mean_and_large_tilt_the_maximum() -> None:
    torch.testing.assert_close(term_weights(losses(), 0.0), torch.full((50,), 0.02, dtype=torch.float64))
    weights = term_weights(losses(), 1e9)
    assert weights.isfinite().all()
    assert int(weights.argmax()) == int(losses().argmax())
    assert effective_sample_size(weights) == pytest.approx(1.0)


def test_scale_free() -> None:
    torch.testing.assert_close(term_weights(losses() * 1e6, 3.0), term_weights(losses(), 3.0))


def test_losses_of_zero() -> None:
    assert term_weights(torch.zeros(4), 5.0).tolist() == [0.25] * 4
    assert effective_sample_size(torch.full((4,), 0.25)) == 4.0
