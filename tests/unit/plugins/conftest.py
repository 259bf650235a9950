"""For plugins: a bench for architectures (synthetic activations, a plain training loop, the promises every SAE makes),
and a dataset context without a run behind it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saebench.activations.sources.plugin_cache import PluginCache
from saebench.api import ActivationBatch, ArchitectureSpec, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.host import Catalog, Registered
from saebench.host.build import build_module
from saebench.nn import autograd_loss_and_grad, total_variance
from saebench.nn.kernels import backends
from saebench.train.step import Trainer

D_IN, D_SAE, BATCH = 16, 32, 128


class Bench:
    """What the tests of architectures share."""

    d_in, d_sae, batch = D_IN, D_SAE, BATCH
    site = Site(D_IN, D_IN)

    @staticmethod
    def generator(seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def data(self, n: int = 4096, seed: int = 0) -> Tensor:
        """Sparse non-negative combinations of 32 fixed directions, shifted; mean square about 1 a coordinate."""
        directions = torch.randn(D_SAE, D_IN, generator=self.generator(77))
        generator = self.generator(seed)
        on = torch.rand(n, D_SAE, generator=generator) < 3 / D_SAE
        x = (on * torch.rand(n, D_SAE, generator=generator)) @ directions + 0.5
        return x / x.pow(2).mean().sqrt()

    def build(self, spec: ArchitectureSpec, config: Mapping[str, Any], seed: int = 0, **more: Any) -> Any:
        chosen = spec.config(**config)
        assert not spec.check(chosen, self.site)
        if spec.wraps:
            return resolve(spec.build)(chosen, site=self.site, generator=self.generator(seed), **more)
        catalog = Catalog(architectures={spec.name: Registered(spec, "tests", "0", __name__)})
        part = ArchitectureUse(spec.name, spec.version, config)
        return build_module(part, None, site=self.site, generator=self.generator(seed), catalog=catalog, **more)

    def start(self, sae: Any, x: Tensor) -> Any:
        if hasattr(sae, "init_from_data"):
            sae.init_from_data(x[:2048], self.generator(1))
        return sae

    def train(self, sae: Any, x: Tensor, lr: float = 1e-2, epochs: int = 2) -> Any:
        """The harness's own steps at one learning rate; ends with `finalize`."""
        total = epochs * len(x)
        settings = TrainSettings(BATCH, lr, (0.9, 0.999), 1e-8, None, 0.0, 0.0, "none")
        trainer = Trainer(sae, settings, self.generator(5), type(sae).__name__)
        for epoch in range(epochs):
            for number, rows in enumerate(torch.randperm(len(x), generator=self.generator(epoch)).split(BATCH)):
                seen = epoch * len(x) + number * BATCH
                trainer.step(ActivationBatch(x[rows], x[rows]), StepInfo(trainer.steps, seen / total, seen, total))
        if hasattr(sae, "finalize"):
            sae.finalize(x.split(BATCH))
        return sae

    @torch.no_grad()
    def score(self, sae: Any, x: Tensor) -> tuple[float, float]:
        """FVU and L0."""
        codes = sae.encode(x)
        return float((sae.decode(codes) - x).pow(2).sum(1).mean()) / total_variance(x), float(
            codes.l0().double().mean()
        )

    def keeps_promises(self, spec: ArchitectureSpec, config: Mapping[str, Any]) -> Any:
        """Same seed, same bits; training lowers FVU on unseen data; the state dict is the whole inference form."""
        x, held_out = self.data(), self.data(1024, seed=1)
        before = self.score(self.start(self.build(spec, config), x), held_out)[0]
        sae = self.train(self.start(self.build(spec, config), x), x)
        again = self.train(self.start(self.build(spec, config), x), x)
        assert sae.state_dict().keys() == again.state_dict().keys()
        for name, tensor in sae.state_dict().items():
            assert torch.equal(tensor, again.state_dict()[name]), name
            assert tensor.isfinite().all(), name
        after = self.score(sae, held_out)[0]
        assert after < 0.7 * before, (before, after)

        fresh = self.build(spec, config, seed=9)
        fresh.load_state_dict(sae.state_dict(), strict=True)
        with torch.no_grad():
            codes, other = sae.encode(held_out), fresh.encode(held_out)
            assert torch.equal(codes.values, other.values)
            assert torch.equal(codes.latents, other.latents)
            assert torch.equal(sae.decode(codes), fresh.decode(other))

        started = self.build(spec, config, seed=9, parent=sae)
        for name, tensor in sae.state_dict().items():
            assert torch.equal(tensor, started.state_dict()[name]), name
        assert sum(p.numel() for p in sae.parameters()) == spec.cost(spec.config(**config), self.site).n_parameters
        stored = sum(t.numel() * t.element_size() for t in sae.state_dict().values())
        assert stored == spec.cost(spec.config(**config), self.site).stored_bytes
        return sae

    def gradients(self, loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
        """Gradient by parameter name; zeros where the loss does not depend on it."""
        names, parameters = zip(*module.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        return {n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, found, strict=True)}

    def by_hand_as_by_autograd(
        self, sae: Any, x: Tensor, step: StepInfo, backend: str, *, weighted: bool, tolerance: float
    ) -> Any:
        """Holds `loss_and_grad` on a back end against autograd through the plain `training_loss` in float64.

        Errors are norms relative to the gradient's norm: a float32 entry that sums to about zero has no digits of its
        own. Both kinds of weights and a target that is not the input are asked for; gradients of an earlier step must
        not matter.
        """
        reference, batch = copy.deepcopy(sae).double(), ActivationBatch(x, 0.9 * x)
        weights = (lambda losses: (3 * losses / losses.mean()).softmax(0)) if weighted else None
        for parameter in sae.parameters():
            parameter.grad = torch.full_like(parameter, 7.0)
        with backends.force(backend):
            ours = sae.loss_and_grad(batch, step, weights)
        theirs = autograd_loss_and_grad(reference, ActivationBatch(x.double(), 0.9 * x.double()), step, weights)
        torch.testing.assert_close(ours.reconstruction.double(), theirs.reconstruction, rtol=tolerance, atol=tolerance)
        assert ours.penalties.keys() == theirs.penalties.keys()
        for name, penalty in theirs.penalties.items():
            assert float(ours.penalties[name]) == pytest.approx(float(penalty), rel=tolerance, abs=1e-12), name
        assert torch.equal(ours.codes.nonzero().latents, theirs.codes.nonzero().latents)
        assert torch.equal(ours.codes.nonzero().offsets, theirs.codes.nonzero().offsets)
        torch.testing.assert_close(ours.x_hat.double(), theirs.x_hat, rtol=tolerance, atol=tolerance)
        assert ours.flops == theirs.flops
        assert not any(t.requires_grad for t in (ours.reconstruction, ours.codes.values, ours.x_hat))
        for (name, parameter), wanted in zip(sae.named_parameters(), reference.parameters(), strict=True):
            gradient = torch.zeros_like(wanted) if wanted.grad is None else wanted.grad
            off = float((parameter.grad.double() - gradient).norm())
            assert off <= tolerance * float(gradient.norm()), (name, off, float(gradient.norm()))
        return ours


@pytest.fixture(scope="session")
def bench() -> Bench:
    return Bench()


class Meter:
    def __init__(self):
        self.tokens = self.flops = 0

    def add(self, *, tokens=0, flops=0):
        self.tokens += tokens
        self.flops += flops


class Context:
    seed = 0
    length = 16

    def __init__(self, cache: Path, model=None, datasets=None):
        self.datasets, self.meter, self.said = datasets or {}, Meter(), []
        self.keep = PluginCache(cache, "recipe", self.said.append)
        self._model = model

    @property
    def model(self):
        assert self._model is not None, "this dataset must not ask for a model"
        return self._model

    def dataset(self, name):
        return self.datasets[name]

    @contextmanager
    def progress(self, total, label):
        yield SimpleNamespace(update=lambda n: None)


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(tmp_path)


@pytest.fixture
def make_context(tmp_path):
    return lambda **parts: Context(tmp_path, **parts)
