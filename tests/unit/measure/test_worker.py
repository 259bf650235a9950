from __future__ import annotations

import dataclasses

import pytest
import torch

from saebench.api import SuiteError
from saebench.host import load_catalog
from saebench.measure.backends import shapes, worker
from saebench.nn.kernels import backends


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(())


@pytest.fixture(scope="module")
def tiny(catalog):
    return shapes.shape_of(catalog, "topk", d_in=16, d_sae=64, k=4, batch=32)


def test_activations_have_unit_mean_square_and_are_the_same_each_time():
    x = worker.activations(600, 24)
    assert torch.equal(x, worker.activations(600, 24))
    assert float(x.double().square().sum(1).mean()) == pytest.approx(24, rel=1e-5)
    assert torch.linalg.matrix_rank(x) == 24


@pytest.mark.parametrize("architecture", ["topk", "jumprelu", "expander", "batch-topk", "relu-l1"])
def test_steps_train(catalog, architecture):
    shape = shapes.shape_of(catalog, architecture, d_in=16, d_sae=64, k=4, batch=64, sparsity_asked=False)
    steps = worker.Steps(dataclasses.asdict(shape), torch.device("cpu"), ())
    first = float(steps.step().reconstruction.mean())
    assert len(steps.steps(60)) == 60
    assert float(steps.step().reconstruction.mean()) < first
    facts = steps.facts()
    assert facts["peak_bytes"] >= 0
    if architecture in ("topk", "expander"):  # the one tells how many rows fell back, the other forms no product
        assert (facts["fallback_rows"] is None) == (architecture == "expander")


def test_what_has_no_training_step_is_refused(tiny):
    pca = dataclasses.replace(
        tiny, part=dataclasses.replace(tiny.part, architecture="control-pca", config={"d_sae": 16, "k": 4})
    )
    with pytest.raises(SuiteError, match="'control-pca' is fitted"):
        worker.Steps(dataclasses.asdict(pca), torch.device("cpu"), ())


@pytest.mark.parametrize("backend", backends.BACKENDS)
def test_the_product_is_the_product(backend):
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(40, 24, generator=generator), torch.randn(72, 24, generator=generator)
    made = worker._product(x, W, backend)()
    assert made.dtype == (torch.bfloat16 if backend == "bf16-screen" else torch.float32)
    error = (made.double() - x.double() @ W.double().T).abs()
    bound = x.double().norm(dim=1, keepdim=True) * W.double().norm(dim=1)
    assert bool((error <= (2.0**-6 if backend == "bf16-screen" else 1e-6) * bound).all())
