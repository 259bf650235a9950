"""FLOPs by formula against what torch counts when it happens.

`FlopCounterMode` counts `mm` and its kin. It does not count sums over bags, sampled and sparse products, oneDNN's fused
products
or anything elementwise: so the back end is `plain`, active latents are held against a dense implementation, and the
    rest is by formula alone.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from saebench.api import ActivationBatch, Cost, LossTerms, Site, StepInfo
from saebench.api.specs import resolve
from saebench.host import load_catalog
from saebench.nn import autograd_loss_and_grad, loss_and_grad
from saebench.nn.kernels import backends

D, N, B = 64, 256, 96
PRODUCT = 2 * D * N * B
STEP = StepInfo(3, 0.5, 500, 1000)
LINEAR = {"topk": {"k": 8}, "batch-topk": {"k": 8}, "jumprelu": {"target_l0": 8.0}, "relu-l1": {}}
CATALOG = load_catalog()


def make(name: str, **config: Any) -> tuple[Any, Cost, Tensor]:
    spec, site = CATALOG.architecture(name).spec, Site(D, D)
    chosen, generator = spec.config(d_sae=N, **config), torch.Generator().manual_seed(0)
    module: Any = resolve(spec.build)(chosen, site=site, generator=generator)
    x = torch.randn(1024, D, generator=generator)
    module.init_from_data(x, generator)
    return module, spec.cost(chosen, site), x[:B]


def counted(function: Any, *arguments: Any) -> int:
    with backends.force("plain"), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", LINEAR)
def test_the_encoder_is_the_one_dense_product_of_a_step(name: str) -> None:
    module, cost, x = make(name, **LINEAR[name])
    batch = ActivationBatch(x, x)
    assert counted(module.encode, x) == PRODUCT
    assert B * cost.encode_flops_per_token == PRODUCT + B * (N + D)  # biases
    assert B * cost.train_flops_per_token == PRODUCT + B * (N + 9 * D)  # biases, residual, loss and their gradients
    assert counted(autograd_loss_and_grad, module, batch, STEP) == PRODUCT
    once = 2 * D * N  # the encoder's part of b_dec's gradient
    assert counted(loss_and_grad, module, batch, STEP) == PRODUCT + once
    without_rows = cost.step_flops - once - 15 * cost.n_parameters
    assert without_rows == 9 * D * N  # unit rows; 15 a parameter are Adam and clipping


@pytest.mark.parametrize("name", LINEAR)
def test_active_latents_cost_what_a_dense_implementation_does_when_all_are_active(name: str) -> None:
    module, cost, x = make(name, **LINEAR[name])

    def dense() -> None:
        f = (x - module.b_dec.detach()) @ module.W_enc.T + module.b_enc  # b_dec's part in here is counted once a step
        ((f @ module.W_dec + module.b_dec - x).square().sum(1) / module.variance).mean().backward()

    elementwise = B * (cost.train_flops_per_token - 2 * D * N)
    assert B * cost.train_flops_per_token - elementwise + N * B * cost.train_flops_per_active == counted(dense)


@pytest.mark.parametrize(("name", "k_aux"), [("topk", 20), ("topk", 64), ("batch-topk", 64)])
def test_aux_k_reports_its_own_work(name: str, k_aux: int) -> None:
    """Done densely over the dead latents, counted for those that are selected: the same where all are."""
    module, _, x = make(name, k=8, k_aux=k_aux)
    n_dead, found = 20, []
    module.dead.silent[:n_dead] = 10**6

    def step(function: Any) -> LossTerms:
        found.append(function(module, ActivationBatch(x, x), STEP))
        return found[-1]

    dense = counted(step, loss_and_grad) - PRODUCT - 2 * D * N
    assert found[0].flops == dense == B * 4 * 2 * D * n_dead
    step(autograd_loss_and_grad)
    assert found[1].flops == dense
    module.k_aux = 5
    assert step(loss_and_grad).flops == B * 4 * 2 * D * 5
    module.dead.silent.zero_()
    assert step(loss_and_grad).flops == 0


def test_expander_has_no_dense_product_and_costs_its_degree() -> None:
    module, cost, x = make("expander", k=8, degree=7)
    batch = ActivationBatch(x, x)
    for function in (loss_and_grad, autograd_loss_and_grad):
        assert counted(function, module, batch, STEP) == 0
    assert counted(module.encode, x) == 0
    assert cost.encode_flops_per_token == 2 * 7 * N + N + D
    wide = make("expander", k=8, degree=D)[1]  # every coordinate: as dense as TopK
    assert wide.train_flops_per_token == make("topk", k=8)[1].train_flops_per_token
    assert wide.train_flops_per_active == make("topk", k=8)[1].train_flops_per_active


def test_other_back_ends_do_the_same_work_and_are_no_ground_to_count_by() -> None:
    module, _, x = make("topk", k=8)
    with backends.force("bf16-screen"), FlopCounterMode(display=False) as counter:
        module.encode(x)
    assert counter.get_total_flops() == PRODUCT + 2 * 2 * N * B  # the bias goes along as two columns
