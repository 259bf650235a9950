"""ReLU-L1 and BatchTopK against dense formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench.api import ActivationBatch, AfterStep, Site, StepInfo
from saebench.nn.kernels import backends
from saebench_plugins.baselines.plugin import (
    BatchTopKConfig,
    ReLUL1Config,
    check_batch_topk,
    check_relu,
    saebench_architectures,
)

RELU, BATCH, _ = saebench_architectures()
STEP = StepInfo(0, 0.0, 0, 1000)


def test_relu_promises(bench: Any) -> None:
    bench.keeps_promises(RELU, {"d_sae": 32, "l1_coefficient": 0.05})


def test_relu_gradients_equal_those_of_the_dense_formula(bench: Any) -> None:
    x = bench.data(40).double()
    sae = bench.start(bench.build(RELU, {"d_sae": 32, "l1_coefficient": 0.3}), bench.data()).double()
    terms = sae.training_loss(ActivationBatch(x, x), STEP)
    ours = bench.gradients(terms.reconstruction.mean() + terms.penalties["l1"], sae)
    f = ((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu()
    x_hat = f @ sae.W_dec + sae.b_dec
    theirs = bench.gradients(
        (x - x_hat).pow(2).sum(1).mean() / sae.variance + 0.3 * f.sum(1).mean() / sae.variance.sqrt(), sae
    )
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_l1_makes_relu_sparse(bench: Any) -> None:
    def l0(coefficient: float) -> float:
        sae = bench.build(RELU, {"d_sae": 32, "l1_coefficient": coefficient})
        found: float = bench.score(bench.train(bench.start(sae, bench.data()), bench.data()), bench.data(512, seed=1))[
            1
        ]
        return found

    assert l0(0.3) < 0.7 * l0(0.003)


def test_silent_latents_are_resampled_once_at_their_fraction(bench: Any) -> None:
    sae = bench.start(bench.build(RELU, {"d_sae": 32, "resample_at": (0.5,)}), bench.data())
    x, resets = bench.data(100), []
    with torch.no_grad():
        sae.b_enc[:2] = -100.0

    def step(seen: int) -> None:
        info, batch = StepInfo(0, seen / 1000, seen, 1000), ActivationBatch(x, x)
        terms = sae.training_loss(batch, info)
        sae.after_step(
            AfterStep(batch, terms, info, bench.generator(), lambda p, rows: resets.append((p, rows.tolist())))
        )

    step(0)
    step(300)
    assert not resets
    step(400)
    assert [rows for _, rows in resets] == [[0, 1]] * 3
    assert sae.b_enc[:2].tolist() == [0.0, 0.0]
    torch.testing.assert_close(sae.W_dec[:2].detach().norm(dim=1), torch.ones(2))
    norm = 0.2 * sae.W_enc[2:].detach().norm(dim=1).mean()
    torch.testing.assert_close(sae.W_enc[:2].detach().norm(dim=1), norm.expand(2))
    step(500)
    assert len(resets) == 3


def test_batch_topk_promises(bench: Any) -> None:
    sae = bench.keeps_promises(BATCH, {"d_sae": 32, "k": 4})
    fvu, l0 = bench.score(sae, bench.data(1024, seed=1))
    assert fvu < 0.25
    assert l0 == pytest.approx(4, rel=0.15)
    assert float(sae.threshold) > 0


def test_batch_topk_tells_how_many_tokens_were_decided_from_the_whole_product(bench: Any) -> None:
    sae, x = bench.start(bench.build(BATCH, {"d_sae": 32, "k": 4}), bench.data()), bench.data(256)
    x[3] *= 1e4
    with backends.force("bf16-screen"):
        terms = sae.loss_and_grad(ActivationBatch(x, x), STEP)
    assert terms.facts["fallback_rows"] == 1 / 256


def test_batch_topk_gradients_equal_those_of_the_dense_formula(bench: Any) -> None:
    x = bench.data(40).double()
    sae = bench.start(bench.build(BATCH, {"d_sae": 32, "k": 4}), bench.data()).double()
    terms = sae.training_loss(ActivationBatch(x, x), STEP)
    ours = bench.gradients(terms.reconstruction.mean(), sae)
    f = ((x - sae.b_dec) @ sae.W_enc.T + sae.b_enc).relu()
    f = f * (f >= f.flatten().topk(160).values[-1])
    x_hat = f @ sae.W_dec + sae.b_dec
    theirs = bench.gradients((x - x_hat).pow(2).sum(1).mean() / sae.variance, sae)
    assert int(terms.codes.l0().sum()) == 160
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def test_inference_does_not_depend_on_the_batch(bench: Any) -> None:
    sae = bench.train(bench.start(bench.build(BATCH, {"d_sae": 32, "k": 4}), bench.data()), bench.data())
    x = bench.data(64, seed=1)
    whole = sae.encode(x).to_dense()
    parts = torch.cat([sae.encode(part).to_dense() for part in x.split(7)])
    torch.testing.assert_close(whole, parts)
    assert torch.equal(whole != 0, parts != 0)


def test_threshold_form_of_one_batch_is_that_batchs_selection(bench: Any) -> None:
    sae, x = bench.start(bench.build(BATCH, {"d_sae": 32, "k": 4}), bench.data()), bench.data(64)
    sae.finalize([x])
    single, together = sae.encode(x).to_dense() != 0, sae.training_codes(x).to_dense() != 0
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    # the smallest kept value is the threshold: the two forms may round it to either side, nothing else
    assert bool(((pre - sae.threshold).abs() < 1e-5)[single != together].all())
    assert int((single != together).sum()) <= 1


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"l1_coefficient": -0.1}, "l1_coefficient"),
        ({"resample_at": (0.5, 1.5)}, "resample_at"),
        ({"d_sae": 0}, "d_sae"),
    ],
)
def test_check_relu(change: dict[str, Any], key: str) -> None:
    assert [p.key for p in check_relu(ReLUL1Config(**{"d_sae": 32, **change}), Site(16, 16))] == [key]


@pytest.mark.parametrize(("change", "key"), [({"k": 99}, "k"), ({"dead_window": 2.0}, "dead_window")])
def test_check_batch_topk(change: dict[str, Any], key: str) -> None:
    assert [p.key for p in check_batch_topk(BatchTopKConfig(**{"d_sae": 32, "k": 4, **change}), Site(16, 16))] == [key]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("coefficient", [0.0, 0.3])
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), *((name, torch.float32, 1e-5) for name in backends.BACKENDS)],
)
def test_relu_by_hand_as_by_autograd(
    bench: Any, backend: str, dtype: torch.dtype, tolerance: float, coefficient: float, weighted: bool
) -> None:
    sae = bench.start(bench.build(RELU, {"d_sae": 32, "l1_coefficient": coefficient}), bench.data())
    with torch.no_grad():
        sae.b_enc[3] = -1e6  # never fires
    x = bench.data(600, seed=3).to(dtype)
    bench.by_hand_as_by_autograd(sae.to(dtype), x, STEP, backend, weighted=weighted, tolerance=tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dead", [(), (2, 5, 7, 11)])
@pytest.mark.parametrize("k", [4, 32])
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), *((name, torch.float32, 1e-5) for name in backends.BACKENDS)],
)
def test_batch_topk_by_hand_as_by_autograd(
    bench: Any, backend: str, dtype: torch.dtype, tolerance: float, k: int, dead: tuple[int, ...], weighted: bool
) -> None:
    sae = bench.start(bench.build(BATCH, {"d_sae": 32, "k": k, "k_aux": 3}), bench.data())
    sae.dead.silent[list(dead)] = 10**6
    if dead and backend == "bf16-screen":
        tolerance = 0.02  # AuxK's products, and which dead latents come third and fourth, are bfloat16's
    x = bench.data(600, seed=3).to(dtype)
    terms = bench.by_hand_as_by_autograd(sae.to(dtype), x, STEP, backend, weighted=weighted, tolerance=tolerance)
    assert (float(terms.penalties["aux"]) > 0) == bool(dead)
