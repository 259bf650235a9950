"""TopK against dense formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench.api import ActivationBatch, AfterStep, Site, StepInfo
from saebench.nn.kernels import backends
from saebench_plugins.topk.plugin import TopKConfig, check, saebench_architectures

(SPEC,) = saebench_architectures()
CONFIG = {"d_sae": 32, "k": 4}


def test_promises(bench: Any) -> None:
    sae = bench.keeps_promises(SPEC, CONFIG)
    fvu, l0 = bench.score(sae, bench.data(1024, seed=1))
    assert fvu < 0.25
    assert l0 <= 4
    torch.testing.assert_close(sae.W_dec.detach().norm(dim=1), torch.ones(32))


def test_gradients_equal_those_of_the_dense_formula(bench: Any) -> None:
    x = bench.data(40).double()
    sae = bench.start(bench.build(SPEC, {**CONFIG, "k_aux": 3}), bench.data()).double()
    sae.dead.silent[[2, 5, 7, 11]] = 10**6
    batch, step = ActivationBatch(x, x), StepInfo(0, 0.0, 0, 1000)
    terms = sae.training_loss(batch, step)
    ours = bench.gradients(terms.reconstruction.mean() + terms.penalties["aux"], sae)

    centred = x - sae.b_dec
    pre = centred @ sae.W_enc.T + sae.b_enc
    kept = torch.zeros_like(pre).scatter(1, pre.topk(4, dim=1).indices, 1.0).bool()
    x_hat = torch.where(kept, pre, 0.0).relu() @ sae.W_dec + sae.b_dec
    e = (x - x_hat).detach()
    dead = torch.zeros(32, dtype=torch.bool)
    dead[[2, 5, 7, 11]] = True
    among = pre.masked_fill(~dead, -torch.inf)
    chosen = torch.zeros_like(pre).scatter(1, among.topk(3, dim=1).indices, 1.0).bool()
    aux = (torch.where(chosen, pre, 0.0).relu() @ sae.W_dec - e).pow(2).mean() / (e - e.mean(0)).pow(2).mean()
    theirs = bench.gradients((x - x_hat).pow(2).sum(1).mean() / sae.variance + aux / 32, sae)

    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dead", [(), (2, 5, 7, 11), tuple(range(32))])
@pytest.mark.parametrize("k", [4, 31, 32])
@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("plain", torch.float64, 1e-10), *((name, torch.float32, 1e-5) for name in backends.BACKENDS)],
)
def test_by_hand_as_by_autograd(
    bench: Any, backend: str, dtype: torch.dtype, tolerance: float, k: int, dead: tuple[int, ...], weighted: bool
) -> None:
    sae = bench.start(bench.build(SPEC, {"d_sae": 32, "k": k, "k_aux": 3}), bench.data())
    sae.dead.silent[list(dead)] = 10**6
    if dead and backend == "bf16-screen":
        tolerance = 0.02  # AuxK's products, and which dead latents come third and fourth, are bfloat16's
    x, step = bench.data(600, seed=3).to(dtype), StepInfo(3, 0.5, 500, 1000)
    terms = bench.by_hand_as_by_autograd(sae.to(dtype), x, step, backend, weighted=weighted, tolerance=tolerance)
    assert (float(terms.penalties["aux"]) > 0) == bool(dead)
    assert 0 <= terms.facts["fallback_rows"] <= 1


def test_without_aux_k_nothing_of_it_is_left(bench: Any) -> None:
    sae = bench.start(bench.build(SPEC, {**CONFIG, "aux_coefficient": 0.0}), bench.data())
    sae.dead.silent[:] = 10**6
    step = StepInfo(3, 0.5, 500, 1000)
    terms = bench.by_hand_as_by_autograd(sae, bench.data(100), step, "plain", weighted=False, tolerance=1e-5)
    assert terms.penalties == {}
    assert terms.flops == 0


def test_kept_values_are_rectified(bench: Any) -> None:
    sae = bench.build(SPEC, {"d_sae": 32, "k": 32})
    codes = sae.encode(bench.data(20))
    assert (codes.values >= 0).all()
    assert (codes.l0() < 32).all()


def test_dead_latents_are_counted_after_each_step(bench: Any) -> None:
    sae, x = bench.build(SPEC, CONFIG), bench.data(10)
    batch, step = ActivationBatch(x, x), StepInfo(0, 0.0, 0, 100)
    terms = sae.training_loss(batch, step)
    assert not sae.dead.silent.any()
    sae.after_step(AfterStep(batch, terms, step, bench.generator(), lambda parameter, rows: None))
    fired = terms.codes.to_dense().ne(0).any(0)
    assert torch.equal(sae.dead.silent, torch.where(fired, 0, 10))


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"k": 33}, "k", "got 33 but d_sae is 32. Use k <= d_sae."),
        ({"k": 0}, "k", "Use 1 or more"),
        ({"d_sae": 0}, "d_sae", "Use 1 or more"),
        ({"aux_coefficient": -1.0}, "aux_coefficient", "Use 0 or more"),
        ({"dead_window": 0.0}, "dead_window", "fraction"),
        ({"k_aux": 0}, "k_aux", "Use 1 or more"),
    ],
)
def test_check(change: dict[str, Any], key: str, words: str) -> None:
    (problem,) = check(TopKConfig(**{**CONFIG, **change}), Site(16, 16))
    assert problem.key == key
    assert words in problem.message
