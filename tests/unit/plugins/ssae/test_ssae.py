"""SSAE over several bases."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from saebench.api import ActivationBatch, Cost, Site, StepInfo
from saebench.nn.kernels import backends
from saebench_plugins.baselines.plugin import saebench_architectures as baselines
from saebench_plugins.expander.plugin import saebench_architectures as expander
from saebench_plugins.jumprelu.plugin import saebench_architectures as jumprelu
from saebench_plugins.ssae.plugin import SSAEConfig, check, cost, saebench_architectures
from saebench_plugins.topk.plugin import saebench_architectures as topk

(SPEC,) = saebench_architectures()
BASES = {
    "topk": (topk()[0], {"d_sae": 32, "k": 4}),
    "jumprelu": (jumprelu()[0], {"d_sae": 32, "target_l0": 4.0}),
    "expander": (expander()[0], {"d_sae": 32, "k": 4, "degree": 5}),
    "relu-l1": (baselines()[0], {"d_sae": 32}),
    "batch-topk": (baselines()[1], {"d_sae": 32, "k": 4}),
}


def parent(bench: Any, name: str) -> Any:
    spec, config = BASES[name]
    return bench.train(bench.start(bench.build(spec, config), bench.data()), bench.data(), epochs=1)


@pytest.mark.parametrize("name", BASES)
def test_fine_tunes_any_base_and_its_state_is_complete(bench: Any, name: str) -> None:
    base = parent(bench, name)
    sae = bench.build(SPEC, {"tilt": 1.0}, base=base)
    assert not hasattr(sae, "init_from_data")
    held_out = bench.data(512, seed=1)
    before = bench.score(sae, held_out)[0]
    bench.train(sae, bench.data(seed=2), lr=3e-3, epochs=1)
    assert bench.score(sae, held_out)[0] < before

    spec, config = BASES[name]
    fresh = bench.build(SPEC, {"tilt": 1.0}, base=bench.build(spec, config, seed=5))
    fresh.load_state_dict(sae.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh.decode(fresh.encode(held_out)), sae.decode(sae.encode(held_out)))
    assert torch.equal(sae.decoder_directions(), fresh.decoder_directions())
    assert all(key.startswith("base.") for key in sae.constraints())
    assert set(sae.constraints()) <= {key for key, _ in sae.named_parameters()}
    assert sae.learned_values() == sum(p.numel() for p in base.parameters())
    assert sae.stored_bytes() == sum(t.numel() * t.element_size() for t in base.state_dict().values())
    assert (sae.support_digest() is not None) == (name == "expander")


def test_gradient_is_that_of_the_tilted_risk(bench: Any) -> None:
    base = parent(bench, "topk").double()
    sae = bench.build(SPEC, {"tilt": 2.0}, base=base)
    x, step = bench.data(50, seed=4).double(), StepInfo(0, 0.0, 0, 10**9)
    terms = sae.training_loss(ActivationBatch(x, x), step)
    losses = terms.reconstruction
    ours = bench.gradients((sae.token_weights(losses.detach(), step) * losses).sum(), sae)

    losses = base.training_loss(ActivationBatch(x, x), step).reconstruction
    mean = losses.detach().mean()
    tilted = mean * (torch.logsumexp(2.0 * losses / mean, 0) - math.log(50)) / 2.0
    theirs = bench.gradients(tilted, sae)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_effective_sample_size_is_recorded(bench: Any) -> None:
    x, step = bench.data(50, seed=4), StepInfo(0, 0.0, 0, 1000)
    base = parent(bench, "topk")

    def size(tilt: float) -> float:
        return float(
            bench.build(SPEC, {"tilt": tilt}, base=base)
            .training_loss(ActivationBatch(x, x), step)
            .facts["effective_sample_size"]
        )

    assert size(0.0) == pytest.approx(50)
    assert 1 < size(1.0) < 50
    assert size(1e9) == pytest.approx(1)
    assert bench.build(SPEC, {"tilt": 1.0}, base=base).facts()["tilt"] == 1.0


def test_needs_a_finite_tilt() -> None:
    for tilt in (-1.0, math.inf, math.nan):
        (problem,) = check(SSAEConfig(tilt), Site(16, 16))
        assert problem.key == "tilt"


def test_cost_is_the_bases_and_a_little(bench: Any) -> None:
    base_cost: Cost = BASES["topk"][0].cost(BASES["topk"][0].config(**BASES["topk"][1]), bench.site)
    own = cost(SSAEConfig(), bench.site, base_cost)
    assert 0 < own.train_flops_per_token - base_cost.train_flops_per_token < 20
    assert own.expected_l0 == 4


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), *((name, torch.float32, 1e-5) for name in backends.BACKENDS)],
)
def test_by_hand_as_by_autograd(
    bench: Any, name: str, backend: str, dtype: torch.dtype, tolerance: float, weighted: bool
) -> None:
    base = bench.start(bench.build(*BASES[name]), bench.data())
    sae = bench.build(SPEC, {"tilt": 2.0}, base=base).to(dtype)
    x, step = bench.data(600, seed=3).to(dtype), StepInfo(3, 0.5, 500, 10**9)
    terms = bench.by_hand_as_by_autograd(sae, x, step, backend, weighted=weighted, tolerance=tolerance)
    assert 1 < terms.facts["effective_sample_size"] < 600


def test_its_own_weights_reach_the_base(bench: Any) -> None:
    sae = bench.build(SPEC, {"tilt": 2.0}, base=bench.start(bench.build(*BASES["topk"]), bench.data())).double()
    x, step = bench.data(50, seed=4).double(), StepInfo(0, 0.0, 0, 10**9)
    batch = ActivationBatch(x, x)
    losses = sae.training_loss(batch, step).reconstruction
    expected = bench.gradients((sae.token_weights(losses.detach(), step) * losses).sum(), sae)
    sae.loss_and_grad(batch, step, lambda found: sae.token_weights(found, step))
    for name, gradient in expected.items():
        torch.testing.assert_close(sae.get_parameter(name).grad, gradient, msg=name)
