"""JumpReLU and the step function, with straight-through gradients for thresholds (arXiv 2407.14435, section 3).

K(u) = 1 where |u| < 1/2, else 0, is the rectangle kernel; eps its bandwidth in units of the pre-activations.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def _kernel(z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    return ((z - theta).abs() < bandwidth / 2).to(z.dtype)


class _JumpReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return torch.where(z > theta, z, torch.zeros_like(z))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        grad = grads[0]
        d_z = grad * (z > theta) if ctx.needs_input_grad[0] else None
        d_theta = None
        if ctx.needs_input_grad[1]:
            d_theta = (-theta / ctx.bandwidth * _kernel(z, theta, ctx.bandwidth) * grad).sum_to_size(theta.shape)
        return d_z, d_theta, None


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, theta)
        ctx.bandwidth = bandwidth
        return (z > theta).to(z.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        z, theta = ctx.saved_tensors
        if not ctx.needs_input_grad[1]:
            return None, None, None
        d_theta = (-1 / ctx.bandwidth * _kernel(z, theta, ctx.bandwidth) * grads[0]).sum_to_size(theta.shape)
        return None, d_theta, None


def jumprelu(z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """`z * H(z - theta)`.

    Gradient to z where z > theta; to theta, by convention of the paper, `-(theta / eps) K((z - theta) / eps)`.

    Args:
        z: Pre-activations, any shape.
        theta: Thresholds, broadcastable to z.
        bandwidth: eps.
    """
    out: Tensor = _JumpReLU.apply(z, theta, bandwidth)  # type: ignore[no-untyped-call]
    return out


def step(z: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
    """`H(z - theta)`, whose sum is L0. No gradient to z; to theta `-(1 / eps) K((z - theta) / eps)`.

    `z` must be pre-activations, not gated ones: those would leave the lower half of the kernel empty.
    """
    out: Tensor = _Step.apply(z, theta, bandwidth)  # type: ignore[no-untyped-call]
    return out
