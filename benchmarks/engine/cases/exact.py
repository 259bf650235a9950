"""Whether the fast TopK step is the slow one: loss curves beside a dense float32 reference, rows that the screen could
not decide.
"""

from __future__ import annotations

from typing import Any

import torch
from material import Setting, Shape
from report import Figure, Result
from torch import Tensor

from saebench.api import ActivationBatch, LossTerms, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.nn import loss_and_grad
from saebench.nn.kernels import backends
from saebench.testing import example_activations
from saebench.train.optimiser import Optimiser

TITLE = "exactness: 200 steps of TopK without AuxK beside dense matrices, autograd and torch.topk in float32"
RATE = 2e-4
"""Peak learning rate at 16,384 latents that others use (dictionary_learning); ours, ten times as high, lets float32's
own rounding grow past any bar.
"""


class Dense:
    """TopK as in the paper."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae

    def parameters(self) -> Any:
        """The SAE's."""
        return self.sae.parameters()

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token; every matrix dense."""
        sae = self.sae
        pre = (batch.x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
        kept = torch.zeros_like(pre).scatter(1, pre.topk(sae.config.k, dim=1).indices, 1.0)
        x_hat = (pre * kept).relu() @ sae.W_dec + sae.b_dec
        return LossTerms((batch.target - x_hat).square().sum(1) / sae.variance)


def _curve(
    setting: Setting, shape: Shape, x: Tensor, steps: int, backend: str | None, *, turned: bool = False
) -> tuple[Tensor, float]:
    """Loss a step, and the share of tokens that fell back.

    `backend` None: the dense reference. `turned`: the same SAE with its latents in reverse order, which changes nothing
    but the order of sums.
    """
    spec = setting.catalog.architecture("topk").spec
    generator = torch.Generator().manual_seed(0)
    config = spec.config(d_sae=shape.d_sae, k=shape.k, aux_coefficient=0.0)
    with backends.force("plain"):  # one start for all
        sae: Any = resolve(spec.build)(config, site=Site(shape.d_in, shape.d_in), generator=generator)
        sae.init_from_data(x[:4096], generator)
    if turned:
        with torch.no_grad():
            for parameter in (sae.W_enc, sae.W_dec, sae.b_enc):
                parameter.copy_(parameter.flip(0))
    made = spec.train
    lr = RATE * (made.reference_width / shape.d_sae) ** 0.5
    settings = TrainSettings(shape.batch, lr, made.betas, made.eps, made.clip, made.warmup, made.decay, "none")
    optimiser = Optimiser(sae, settings, "exact")
    losses, fell = [], 0.0
    with backends.force(backend or "plain"):
        for index in range(steps):
            start = index * shape.batch % len(x)
            batch = ActivationBatch(x[start : start + shape.batch], x[start : start + shape.batch])
            step = StepInfo(index, index / steps, index * shape.batch, steps * shape.batch)
            terms = loss_and_grad(Dense(sae) if backend is None else sae, batch, step)
            optimiser.step(index / steps, (index + 1) / steps)
            losses.append(terms.reconstruction.double().mean())
            fell += terms.facts.get("fallback_rows", 0.0) / steps
    return torch.stack(losses), fell


def _apart(curve: Tensor, reference: Tensor) -> float:
    return float(((curve - reference).abs() / reference).max())


def measure(setting: Setting) -> Result:
    """Once: nothing here depends on the clock."""
    shape = Shape(64, 256, 8, 256) if setting.small else Shape(256, 4096, 32, 1024)
    steps = 4 if setting.small else 200
    x = example_activations(16 * shape.batch, shape.d_in)
    reference, _ = _curve(setting, shape, x, steps, None)
    turned, _ = _curve(setting, shape, x, steps, None, turned=True)
    figures = [Figure("the dense reference itself, latents in reverse order", [_apart(turned, reference)])]
    ends = {"dense reference": float(reference[-1])}
    for backend in backends.BACKENDS:
        curve, fell = _curve(setting, shape, x, steps, backend)
        ends[backend] = float(curve[-1])
        distance = _apart(curve, reference)
        figures.append(Figure(f"{backend}: largest relative distance of the loss curves", [distance], 1e-4))
        if backend == "bf16-screen":
            figures.append(Figure("bf16-screen: share of tokens that fell back", [fell], 0.005))
    return Result([], figures, {"sizes": str(shape), "steps": steps, "last losses": ends})
