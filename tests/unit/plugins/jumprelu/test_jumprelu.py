"""JumpReLU against dense formulas, and its hold on L0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from saebench.api import ActivationBatch, NonNegative, Site, StepInfo
from saebench.nn import jumprelu, step
from saebench.nn.kernels import backends
from saebench_plugins.jumprelu.plugin import JumpReLUConfig, check, saebench_architectures

(SPEC,) = saebench_architectures()
CONFIG = {"d_sae": 32, "target_l0": 4.0}


def test_promises_and_l0_on_target(bench: Any) -> None:
    sae = bench.keeps_promises(SPEC, CONFIG)
    fvu, l0 = bench.score(sae, bench.data(1024, seed=1))
    assert fvu < 0.2
    assert abs(l0 - 4) < 0.8
    assert (sae.theta > 0).all()


@pytest.mark.parametrize("config", [CONFIG, {"d_sae": 32, "l0_coefficient": 0.02, "start_l0": 6.0}])
def test_gradients_equal_those_of_the_dense_formula(bench: Any, config: dict[str, Any]) -> None:
    x = bench.data(60).double()
    sae = bench.start(bench.build(SPEC, config), bench.data()).double()
    info = StepInfo(3, 0.5, 500, 1000)
    terms = sae.training_loss(ActivationBatch(x, x), info)
    ours = bench.gradients(terms.reconstruction.mean() + terms.penalties["l0"], sae)

    eps = float(sae.bandwidth)
    z = functional.linear(x - sae.b_dec, sae.W_enc, sae.b_enc)
    x_hat = jumprelu(z, sae.theta, eps) @ sae.W_dec + sae.b_dec
    l0 = step(z.detach(), sae.theta, eps).sum(1).mean()
    penalty = 3.0 * (l0 / 4 - 1).pow(2) if "target_l0" in config else 0.02 * l0
    theirs = bench.gradients((x - x_hat).pow(2).sum(1).mean() / sae.variance + penalty, sae)

    torch.testing.assert_close(terms.x_hat, x_hat)
    torch.testing.assert_close(terms.codes.l0().double().mean(), l0.detach())
    assert ours["theta"].any()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_starts_at_the_target(bench: Any) -> None:
    sae = bench.start(bench.build(SPEC, CONFIG), bench.data())
    assert bench.score(sae, bench.data()[:2048])[1] == pytest.approx(4, rel=0.02)


def test_lambda_form_trades_l0_for_reconstruction(bench: Any) -> None:
    def l0(coefficient: float) -> float:
        sae = bench.build(SPEC, {"d_sae": 32, "l0_coefficient": coefficient, "start_l0": 8.0})
        found: float = bench.score(bench.train(bench.start(sae, bench.data()), bench.data()), bench.data(512, seed=1))[
            1
        ]
        return found

    assert l0(0.2) < l0(0.002)


def test_penalty_warms_up(bench: Any) -> None:
    sae, x = bench.start(bench.build(SPEC, CONFIG), bench.data()), bench.data(50, seed=3)
    batch = ActivationBatch(x, x)

    def penalty(progress: float) -> float:
        return float(sae.training_loss(batch, StepInfo(0, progress, 0, 1000)).penalties["l0"].detach())

    assert penalty(0.0) == 0.0
    assert penalty(0.025) == pytest.approx(penalty(0.5) / 2)
    assert penalty(0.05) == penalty(0.9)


def test_thresholds_learn_on_their_own_and_stay_positive(bench: Any) -> None:
    sae = bench.build(SPEC, {**CONFIG, "threshold_lr": 0.5})
    others, thresholds = sae.param_groups(0.1)
    assert thresholds["params"] == [sae.theta]
    assert thresholds["lr"] == 0.05
    assert len(others["params"]) == 4
    assert isinstance(sae.constraints()["theta"], NonNegative)


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ({"d_sae": 32}, "target_l0", "got neither"),
        ({"d_sae": 32, "target_l0": 4.0, "l0_coefficient": 1.0}, "target_l0", "got both"),
        ({"d_sae": 32, "target_l0": 32.0}, "target_l0", "below d_sae"),
        ({"d_sae": 32, "target_l0": -1.0}, "target_l0", "above 0"),
        ({"d_sae": 32, "l0_coefficient": 0.0}, "l0_coefficient", "above 0"),
        ({"d_sae": 32, "target_l0": 4.0, "bandwidth": 0.0}, "bandwidth", "above 0"),
        ({"d_sae": 32, "target_l0": 4.0, "penalty_warmup": 2.0}, "penalty_warmup", "fraction"),
    ],
)
def test_check(config: dict[str, Any], key: str, words: str) -> None:
    (problem,) = check(JumpReLUConfig(**config), Site(16, 16))
    assert problem.key == key
    assert words in problem.message


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("config", [CONFIG, {"d_sae": 32, "l0_coefficient": 0.02, "start_l0": 6.0}])
@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), *((name, torch.float32, 1e-5) for name in backends.BACKENDS)],
)
def test_by_hand_as_by_autograd(
    bench: Any, config: dict[str, Any], backend: str, dtype: torch.dtype, tolerance: float, weighted: bool, fires: bool
) -> None:
    sae = bench.start(bench.build(SPEC, config), bench.data())
    with torch.no_grad():
        sae.theta[5] = 1e6 if fires else 1.0
        if not fires:
            sae.theta.fill_(1e6)
    x, info = bench.data(600, seed=3).to(dtype), StepInfo(3, 0.5, 500, 1000)
    terms = bench.by_hand_as_by_autograd(sae.to(dtype), x, info, backend, weighted=weighted, tolerance=tolerance)
    assert bool(terms.codes.values.any()) == fires
    assert bool(sae.theta.grad.any()) == fires
