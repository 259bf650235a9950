"""What bfloat16 costs: nothing without AuxK (the screen is exact), a bounded part of FVU with it."""

from __future__ import annotations

import email.message
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import ActivationBatch, AfterStep, LossTerms, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.lm.model import LanguageModel
from saebench.nn import loss_and_grad, total_variance
from saebench.nn.kernels import backends
from saebench.testing import example_activations
from saebench.train.optimiser import Optimiser
from saebench_plugins.topk.plugin import saebench_architectures

(SPEC,) = saebench_architectures()
STEPS, BATCH = 200, 256


class Dense:
    """TopK as it stands in the paper, dense matrices and autograd, float32: the reference of the loss curve."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        sae = self.sae
        pre = (batch.x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
        kept = torch.zeros_like(pre).scatter(1, pre.topk(sae.config.k, dim=1).indices, 1.0)
        x_hat = (pre * kept).relu() @ sae.W_dec + sae.b_dec
        return LossTerms((batch.target - x_hat).square().sum(1) / sae.variance)

    def parameters(self) -> Any:
        return self.sae.parameters()


def train(x: Tensor, backend: str, *, dense: bool = False, mute: int = 0, **config: Any) -> tuple[Any, Tensor, float]:
    """The module, its loss curve, and the share of latents that was dead on average. `mute` latents start too low to
    fire."""
    width = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    sae: Any = resolve(SPEC.build)(SPEC.config(**config), site=Site(width, width), generator=generator)
    with backends.force("plain"):  # one start for all
        sae.init_from_data(x[:4096], generator)
        sae.b_enc.data[:mute] = -2.0
    settings = TrainSettings(BATCH, 2e-3, (0.9, 0.999), 1e-8, clip=1.0, warmup=0.05, decay=0.2, normalise="none")
    optimiser = Optimiser(sae, settings, "fidelity")
    order = torch.Generator().manual_seed(1)
    losses, dead, total = [], 0, STEPS * BATCH
    with backends.force(backend):
        for index in range(STEPS):
            rows = x[torch.randint(0, len(x), (BATCH,), generator=order)]
            batch, step = ActivationBatch(rows, rows), StepInfo(index, index / STEPS, index * BATCH, total)
            terms = loss_and_grad(Dense(sae) if dense else sae, batch, step)
            optimiser.step(index / STEPS, (index + 1) / STEPS)
            sae.after_step(AfterStep(batch, terms, step, generator, optimiser.reset_moments))
            losses.append(terms.reconstruction.mean())
            dead += sae.dead.dead(total).numel()
    return sae, torch.stack(losses), dead / STEPS / sae.d_sae


@torch.no_grad()
def fvu(sae: Any, x: Tensor) -> float:
    return float((sae.decode(sae.encode(x)) - x).square().sum(1).mean()) / total_variance(x)


@pytest.fixture(scope="module")
def activations() -> Tensor:
    """About 8,000 tokens of the packaged language model reading Python, with the outliers that real models have."""
    model = LanguageModel.load("docs-lm")
    ids = model.encode(inspect.getsource(email.message))
    windows = torch.tensor(ids[: len(ids) // 128 * 128]).view(-1, 128)
    x = model.activations(windows, "model.layers.3")
    x = x.reshape(-1, x.shape[-1]).float()
    return x / x.square().mean().sqrt()


SMALL = {"d_sae": 384, "k": 12, "aux_coefficient": 0.0}


@pytest.fixture(scope="module")
def reference() -> Tensor:
    return train(example_activations(4096, 48), "plain", dense=True, **SMALL)[1]


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_the_loss_curve_is_that_of_the_dense_float32_reference(reference: Tensor, backend: str) -> None:
    curve = train(example_activations(4096, 48), backend, **SMALL)[1]
    assert float(reference[-1]) < 0.5 * float(reference[0]), "the case is real: it learns"
    assert float(((curve - reference) / reference).abs().max()) < 1e-4


def test_aux_k_in_bfloat16_leaves_fvu_within_a_hundredth(activations: Tensor) -> None:
    config = {"d_sae": 512, "k": 16, "aux_coefficient": 1 / 32, "dead_window": 0.02}
    plain, _, dead = train(activations, "plain", mute=128, **config)
    screened, _, _ = train(activations, "bf16-screen", mute=128, **config)
    assert dead > 0.05, "the case is real: AuxK has work"
    assert not torch.equal(plain.W_dec, screened.W_dec)
    with backends.force("plain"):
        assert fvu(screened, activations) == pytest.approx(fvu(plain, activations), rel=0.01)
