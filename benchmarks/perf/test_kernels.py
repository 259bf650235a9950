"""How long the kernels take. `make perf`; compare two commits with pytest-benchmark's --benchmark-compare.

Read ratios, not single times: machines differ, and share their cores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from saebench.api import ActivationBatch, AfterStep, Site, StepInfo
from saebench.api.specs import resolve
from saebench.cells.cell import TrainSettings
from saebench.host import load_catalog
from saebench.metrics.reconstruction import FvuAccumulator
from saebench.nn import loss_and_grad
from saebench.nn.kernels import backends
from saebench.testing import example_activations
from saebench.train.optimiser import Optimiser

D_IN, D_SAE, K, BATCH = 192, 2048, 16, 1024
CONFIGS: dict[str, dict[str, Any]] = {
    "topk": {"d_sae": D_SAE, "k": K},
    "jumprelu": {"d_sae": D_SAE, "target_l0": K},
    "expander": {"d_sae": D_SAE, "k": K, "degree": 7},
    "batch-topk": {"d_sae": D_SAE, "k": K},
    "relu-l1": {"d_sae": D_SAE},
}


def _sae(name: str) -> tuple[Any, torch.Tensor]:
    spec = load_catalog().architecture(name).spec
    generator = torch.Generator().manual_seed(0)
    x = example_activations(BATCH, D_IN)
    sae = resolve(spec.build)(spec.config(**CONFIGS[name]), site=Site(D_IN, D_IN), generator=generator)
    if hasattr(sae, "init_from_data"):
        sae.init_from_data(x, generator)
    return sae, x


def _training_step(name: str) -> Callable[[], None]:
    """Loss, gradients, Adam under constraints, and `after_step`, on one batch: a step as a run takes it, meter and
    monitor left out.
    """
    sae, x = _sae(name)
    defaults = load_catalog().architecture(name).spec.train
    settings = TrainSettings(BATCH, 1e-4, defaults.betas, defaults.eps, defaults.clip, 0.0, 0.0, "none")
    optimiser = Optimiser(sae, settings, name)
    batch, info = ActivationBatch(x, x), StepInfo(0, 0.5, 0, 1_000_000)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        terms = loss_and_grad(sae, batch, info)
        optimiser.step(0.5, 0.5)
        if hasattr(sae, "after_step"):
            with torch.no_grad():
                sae.after_step(AfterStep(batch, terms, info, generator, optimiser.reset_moments))
            optimiser.constraints.enforce_again()

    return step


@pytest.mark.parametrize("name", CONFIGS)
def test_training_step(benchmark: Any, name: str) -> None:
    """On the back end that fits this machine."""
    benchmark(_training_step(name))


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_training_step_by_backend(benchmark: Any, backend: str) -> None:
    """TopK's; `saebench bench-backends` measures larger shapes, interleaved."""
    if not backends.onednn_available() and backend != "plain":
        pytest.skip("this torch was built without oneDNN")
    with backends.force(backend):
        benchmark(_training_step("topk"))


@pytest.mark.parametrize("name", ["topk", "jumprelu", "expander"])
def test_encode(benchmark: Any, name: str) -> None:
    """Codes of one batch, no gradient."""
    sae, x = _sae(name)
    with torch.no_grad():
        benchmark(lambda: sae.encode(x))


def test_dense_encoder_product(benchmark: Any) -> None:
    """torch's float32 product of the same size: the yardstick for the steps above."""
    x, weight = torch.randn(BATCH, D_IN), torch.randn(D_SAE, D_IN)
    benchmark(lambda: x @ weight.T)


def test_fvu_accumulator(benchmark: Any) -> None:
    """65k tokens in batches of 1024, clustered by sequence."""
    x = example_activations(BATCH, D_IN)
    ids = torch.arange(BATCH) // 128

    def score() -> None:
        fvu = FvuAccumulator(D_IN)
        for index in range(64):
            fvu.update(x, 0.9 * x, ids + 8 * index)
        fvu.compute()

    benchmark(score)
