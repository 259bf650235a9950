"""JumpReLU and step: forward by hand, straight-through gradients by the formula."""

from __future__ import annotations

import torch

from saebench.nn import jumprelu, step


def test_values_by_hand() -> None:
    z, theta = torch.tensor([-1.0, 0.5, 0.6, 2.0]), torch.tensor(0.5)
    torch.testing.assert_close(jumprelu(z, theta, 0.1), torch.tensor([0.0, 0.0, 0.6, 2.0]))
    assert step(z, theta, 0.1).tolist() == [0.0, 0.0, 1.0, 1.0]


def test_jumprelu_gradients_follow_the_pseudo_derivatives() -> None:
    eps, theta_value = 0.4, 1.0
    z = torch.tensor([0.5, 0.85, 1.15, 1.3], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor(theta_value, dtype=torch.float64, requires_grad=True)
    upstream = torch.tensor([1.0, 10.0, 100.0, 1000.0], dtype=torch.float64)
    (jumprelu(z, theta, eps) * upstream).sum().backward()
    assert z.grad is not None
    assert theta.grad is not None
    assert z.grad.tolist() == [0.0, 0.0, 100.0, 1000.0]
    # 0.85 and 1.15 lie inside the kernel |z - theta| < 0.2
    torch.testing.assert_close(theta.grad, torch.tensor(-(theta_value / eps) * 110.0, dtype=torch.float64))


def test_step_gradient_goes_to_the_threshold_only() -> None:
    z = torch.tensor([[0.9, 3.0], [1.1, 2.1]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    step(z, theta, 0.5).sum().backward()
    assert z.grad is None
    assert theta.grad is not None
    assert theta.grad.tolist() == [-4.0, -2.0]


def test_step_gradient_is_that_of_smoothed_l0() -> None:
    """The mean STE gradient estimates d E[L0] / d theta = -density(theta): -1 for uniform pre-activations on [0, 1]."""
    z = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    step(z, theta, 0.1).mean().backward()
    assert theta.grad is not None
    torch.testing.assert_close(theta.grad, torch.tensor(-1.0, dtype=torch.float64), rtol=1e-3, atol=0)
