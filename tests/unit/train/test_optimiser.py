from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from saebench.api import Diverged, NonNegative, PluginError, UnitRows
from saebench.cells.cell import TrainSettings
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
    settings = TrainSettings(1, 0.1, (0.9, 0.999), 1e-8, clip=None, warmup=0.0, decay=0.0, normalise="none")
    return Optimiser(module, replace(settings, **changes), "cell")


def step(optimiser, loss, before, after):
    """Fills the gradients as `loss_and_grad` does, then steps."""
    for parameter in optimiser._parameters:
        parameter.grad = None
    loss.backward()
    optimiser.step(before, after)


def test_first_step_by_hand():
    # Adam's first step is lr * sign(gradient), whatever its size
    module = Module()
    start = module.b.detach().clone()
    step(make(module), (module.b * torch.tensor([1.0, -2.0, 3.0, 0.5])).sum(), 0.0, 0.1)
    torch.testing.assert_close(module.b.detach(), start - 0.1 * torch.tensor([1.0, -1.0, 1.0, 1.0]))


def test_groups_keep_their_own_peak_and_share_the_schedule():
    class Grouped(Module):
        def param_groups(self, lr):
            return [{"params": [self.W], "lr": lr}, {"params": [self.b], "lr": 10 * lr}]

    module = Grouped()
    start = module.b.detach().clone(), module.W.detach().clone()
    step(make(module, warmup=1.0), module.b.sum() + module.W.sum(), 0.0, 1.0)  # midpoint 0.5 of the warm-up
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
    step(optimiser, 1000 * (module.b.sum() + module.W.sum()), 0.0, 0.1)
    assert sum(float(p.grad.square().sum()) for p in (module.W, module.b)) == pytest.approx(1.0, rel=1e-4)
    with pytest.raises(Diverged, match="the gradient's norm is"):
        step(optimiser, module.b.sum() * float("inf"), 0.1, 0.2)


def test_reset_moments_forgets_just_those_rows():
    module = Module()
    optimiser = make(module)
    step(optimiser, module.W.square().sum() + module.b.sum(), 0.0, 0.1)
    state = optimiser._adam.state[module.W]
    before = state["exp_avg"].clone()
    optimiser.reset_moments(module.W, torch.tensor([1]))
    assert torch.equal(state["exp_avg"][1], torch.zeros(4))
    assert torch.equal(state["exp_avg_sq"][1], torch.zeros(4))
    assert torch.equal(state["exp_avg"][[0, 2]], before[[0, 2]])
    # a row without moments and without gradient does not move; the others coast on
    rows = module.W.detach().clone()
    step(optimiser, (module.W * 0).sum() + (module.b * 0).sum(), 0.1, 0.2)
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


def test_state_brings_back_all_that_the_next_steps_depend_on():
    def run(optimiser, module, first, last):
        for index in range(first, last):
            step(optimiser, (module.W * (index + 1.0)).square().sum() + module.b.sum(), index / 10, (index + 1) / 10)

    whole, half, other = Module(W=UnitRows()), Module(W=UnitRows()), Module(W=UnitRows())
    run(make(whole), whole, 0, 6)
    optimiser = make(half)
    run(optimiser, half, 0, 3)
    kept = {name: value.clone() for name, value in optimiser.state().items()}
    again = make(other)
    other.load_state_dict(half.state_dict())
    again.load_state(kept)
    run(optimiser, half, 3, 5)  # what was kept is a copy: the first one going on changes nothing of it
    run(again, other, 3, 6)
    assert torch.equal(whole.W, other.W)
    assert torch.equal(whole.b, other.b)


@pytest.mark.parametrize("values", [1, 4, 9, 10**6])
def test_projection_in_chunks_is_the_plain_formula(monkeypatch, values):
    monkeypatch.setattr("saebench.train.optimiser.CHUNK_VALUES", values)
    generator = torch.Generator().manual_seed(2)
    module = Module(W=UnitRows())
    module.W = nn.Parameter(torch.randn(37, 4, generator=generator))
    module.W.data[5] = 0
    start = module.W.detach().double()
    constraints = Constraints(module, "cell")
    constraints.enforce()
    unit = start / start.norm(dim=1, keepdim=True).clamp_min(1e-30)
    torch.testing.assert_close(module.W.detach().double(), unit, rtol=1e-6, atol=1e-7)
    gradient = torch.randn(37, 4, generator=generator)
    module.W.grad = gradient.clone()
    constraints.project_gradients()
    expected = gradient.double() - (gradient.double() * unit).sum(1, keepdim=True) * unit
    torch.testing.assert_close(module.W.grad.double(), expected, rtol=0, atol=1e-6)
    assert torch.equal(module.W.grad[5], gradient[5])


def test_a_short_gradient_is_left_alone_and_a_long_one_is_scaled():
    module = Module()
    optimiser = make(module, clip=2.0)
    for length in (1.999, 2.0, 2.5, 1e15):
        gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(3)), torch.ones(4)
        norm = torch.cat([part.flatten() for part in gradient]).double().norm()
        module.W.grad, module.b.grad = ((part.double() / norm * length).float() for part in gradient)
        before = module.W.grad.clone(), module.b.grad.clone()
        optimiser.step(0.0, 0.1)
        if length <= 1.999:
            assert torch.equal(module.W.grad, before[0])
        torch.testing.assert_close(module.W.grad, before[0] * min(1.0, 2.0 / length))
        torch.testing.assert_close(module.b.grad, before[1] * min(1.0, 2.0 / length))


def test_state_has_moments_and_counts_of_every_parameter_and_loads_the_same_bits():
    class Grouped(Module):
        def param_groups(self, lr):
            return [{"params": [self.b], "lr": lr, "betas": (0.5, 0.5)}, {"params": [self.W], "lr": lr}]

    module, other = Grouped(), Grouped()
    optimiser, fresh = make(module, clip=1.0), make(other, clip=1.0)
    assert optimiser.state() == {}
    step(optimiser, module.W.square().sum() + module.b.sum(), 0.0, 0.1)
    state = optimiser.state()
    assert set(state) == {f"{index}.{name}" for index in (0, 1) for name in ("step", "exp_avg", "exp_avg_sq")}
    fresh.load_state(state)
    loaded = fresh.state()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in state.items())
    assert not any(loaded[name] is value for name, value in state.items())
    for value in state.values():
        value.zero_()
    assert all(value.any() for value in fresh.state().values())


def test_stepping_is_torchs_adam():
    module, plain = Module(), Module()
    optimiser = make(module, lr=0.03, betas=(0.8, 0.9))
    adam = torch.optim.Adam(plain.parameters(), lr=0.03, betas=(0.8, 0.9), eps=1e-8)
    for index in range(5):
        for own in (module, plain):
            own.W.grad = own.W.detach() * (index + 1)
            own.b.grad = own.b.detach() + 1
        optimiser.step(index / 5, (index + 1) / 5)
        adam.step()
    torch.testing.assert_close(module.W, plain.W)
    torch.testing.assert_close(module.b, plain.b)
