from __future__ import annotations

import pytest
import torch
from torch import nn

from saebench.api import Diverged, NonNegative, PluginError, UnitRows
from saebench.train.optimiser import Constraints, Optimiser


class Module(nn.Module):
    def __init__(self, **constraints):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.W = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.b = nn.Parameter(torch.zeros(4))
        self._constraints = constraints

    def constraints(self):
        return self._constraints


def make(module, **changes):
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "clip": None, "warmup": 0.0, "decay": 0.0, **changes}
    return Optimiser(module, **settings, label="cell")


def test_first_step_by_hand():
    # Adam's first step is lr * sign(gradient), whatever its size
    module = Module()
    start = module.b.detach().clone()
    make(module).step((module.b * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum(), 0.0, 0.1)
    torch.testing.assert_close(module.b.detach(), start - 0.1 * torch.tensor([1.0, -1.0, 1.0, 1.0]))


def test_groups_keep_their_own_peak_and_share_the_schedule():
    class Grouped(Module):
        def param_groups(self, lr):
            return [{"params": [self.W], "lr": lr}, {"params": [self.b], "lr": 10 * lr}]

    module = Grouped()
    start = module.b.detach().clone(), module.W.detach().clone()
    make(module, warmup=1.0).step(module.b.sum() + module.W.sum(), 0.0, 1.0)  # midpoint 0.5 of the warm-up
    torch.testing.assert_close(module.b.detach(), start[0] - 0.5)
    torch.testing.assert_close(module.W.detach(), start[1] - 0.05)


def test_projection_leaves_no_component_along_a_row():
    module = Module(W=UnitRows())
    constraints = Constraints(module, "cell")
    constraints.enforce()
    torch.testing.assert_close(module.W.norm(dim=1), torch.ones(3))
    module.W.grad = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    expected = module.W.grad - (module.W.grad * module.W).sum(1, keepdim=True) * module.W
    constraints.project_gradients()
    torch.testing.assert_close(module.W.grad, expected.detach())
    torch.testing.assert_close((module.W.grad * module.W).sum(1), torch.zeros(3), atol=1e-6, rtol=0)


def test_zero_rows_stay_zero_and_floors_hold():
    module = Module(W=UnitRows(), b=NonNegative(0.1))
    module.W.data[0] = 0
    module.b.data[:] = torch.tensor([-1.0, 0.0, 0.1, 2.0])
    Constraints(module, "cell").enforce()
    assert torch.equal(module.W[0], torch.zeros(4))
    torch.testing.assert_close(module.b.detach(), torch.tensor([0.1, 0.1, 0.1, 2.0]))


def test_clip_bounds_the_global_norm():
    module = Module()
    optimiser = make(module, clip=1.0)
    optimiser.step(1000 * (module.b.sum() + module.W.sum()), 0.0, 0.1)
    assert sum(float(p.grad.square().sum()) for p in (module.W, module.b)) == pytest.approx(1.0, rel=1e-4)
    with pytest.raises(Diverged, match="the gradient's norm is"):
        optimiser.step(module.b.sum() * float("inf"), 0.1, 0.2)


def test_reset_moments_forgets_just_those_rows():
    module = Module()
    optimiser = make(module)
    optimiser.step(module.W.square().sum() + module.b.sum(), 0.0, 0.1)
    state = optimiser._adam.state[module.W]
    before = state["exp_avg"].clone()
    optimiser.reset_moments(module.W, torch.tensor([1]))
    assert torch.equal(state["exp_avg"][1], torch.zeros(4))
    assert torch.equal(state["exp_avg_sq"][1], torch.zeros(4))
    assert torch.equal(state["exp_avg"][[0, 2]], before[[0, 2]])
    # a row without moments and without gradient stands still; the others coast on
    rows = module.W.detach().clone()
    optimiser.step((module.W * 0).sum() + (module.b * 0).sum(), 0.1, 0.2)
    assert torch.equal(module.W[1], rows[1])
    assert not torch.equal(module.W[0], rows[0])
    with pytest.raises(PluginError, match="no trained parameter"):
        optimiser.reset_moments(torch.zeros(3, 4), torch.tensor([0]))


def test_wrong_groups_and_constraints_are_named():
    class Forgetful(Module):
        def param_groups(self, lr):
            return [{"params": [self.W], "lr": lr}]

    with pytest.raises(PluginError, match="leaves out b"):
        make(Forgetful())
    with pytest.raises(PluginError, match="names 'W_dec', which is no parameter"):
        Constraints(Module(W_dec=UnitRows()), "cell")
    with pytest.raises(PluginError, match="known: UnitRows, NonNegative"):
        Constraints(Module(W="unit"), "cell")
    with pytest.raises(PluginError, match="nothing to train"):
        make(Module().requires_grad_(False))
    with pytest.raises(PluginError, match="float32"):
        make(Module().double())
