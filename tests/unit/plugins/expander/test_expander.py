"""Expander against a dense masked model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from saebench.api import ActivationBatch, AfterStep, Site, StepInfo, SuiteError
from saebench.nn import expander_dense
from saebench_plugins.expander.plugin import ExpanderConfig, check, saebench_architectures

(SPEC,) = saebench_architectures()
CONFIG = {"d_sae": 32, "k": 4, "degree": 5}


def test_promises(bench: Any) -> None:
    sae = bench.keeps_promises(SPEC, CONFIG)
    assert bench.score(sae, bench.data(512, seed=1))[1] == 4


def test_gradients_equal_those_of_the_dense_formula(bench: Any) -> None:
    x = bench.data(40).double()
    sae = bench.start(bench.build(SPEC, CONFIG), bench.data()).double()
    terms = sae.training_loss(ActivationBatch(x, x), StepInfo(0, 0.0, 0, 1000))
    ours = bench.gradients(terms.reconstruction.mean(), sae)

    D = expander_dense(sae.V / sae.V.norm(dim=1, keepdim=True), sae.coords, 16)
    pre = (x - sae.b_dec) @ D.T + sae.b_enc
    f = pre * torch.zeros_like(pre).scatter(1, pre.topk(4, dim=1).indices, 1.0)
    x_hat = f @ D + sae.b_dec
    theirs = bench.gradients((x - x_hat).pow(2).sum(1).mean() / sae.variance, sae)
    torch.testing.assert_close(terms.x_hat, x_hat)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, msg=name)


def twins(bench: Any, dtype: torch.dtype) -> tuple[Any, ActivationBatch]:
    """An SAE with all biases set, a short row and a zero row in V, and a batch whose target is not its input."""
    x = bench.data(300).to(dtype)
    sae = bench.start(bench.build(SPEC, {"d_sae": 200, "k": 4, "degree": 5}), bench.data()).to(dtype)
    with torch.no_grad():
        sae.b_enc.normal_(0, 0.1, generator=bench.generator(3))
        sae.V[0], sae.b_enc[0] = 0.0, 10.0
        sae.V[1], sae.b_enc[1] = 1e-9, 10.0
    return sae, ActivationBatch(x, x.flip(1) * 0.5 + x)


def weights(losses: torch.Tensor) -> torch.Tensor:
    assert not losses.requires_grad
    return (losses / losses.mean()).softmax(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("token_weights", [None, weights])
def test_own_gradients_equal_those_of_training_loss(bench: Any, dtype: torch.dtype, token_weights: Any) -> None:
    sae, batch = twins(bench, dtype)
    step = StepInfo(0, 0.0, 0, 1000)
    terms = sae.training_loss(batch, step)
    losses = terms.reconstruction
    loss = losses.mean() if token_weights is None else (token_weights(losses.detach()) * losses).sum()
    theirs = bench.gradients(loss, sae)

    for _ in range(2):  # gradients are set, not added
        own = sae.loss_and_grad(batch, step, token_weights)
    assert torch.equal(own.codes.latents, terms.codes.latents)
    assert torch.equal(own.codes.values, terms.codes.values)
    assert torch.equal(own.x_hat, terms.x_hat)
    torch.testing.assert_close(own.reconstruction, losses.detach())
    assert not any(t.requires_grad for t in (own.reconstruction, own.codes.values, own.x_hat))
    assert not own.penalties
    for name, parameter in sae.named_parameters():
        scale = float(theirs[name][2:].abs().max() if name == "V" else theirs[name].abs().max())
        rtol = 1e-5 if dtype == torch.float32 else 1e-12
        rows = slice(2, None) if name == "V" else slice(None)
        torch.testing.assert_close(parameter.grad[rows], theirs[name][rows], rtol=rtol, atol=rtol * scale, msg=name)
    torch.testing.assert_close(sae.V.grad[:2], theirs["V"][:2], rtol=1e-4, atol=0.0)
    assert sae.V.grad[:2].any(1).all()


def test_own_gradients_of_one_token_equal_those_by_hand(bench: Any) -> None:
    """Latents of degree 1 and k = 1: one latent reads and writes coordinate 3, the rest of the token is lost."""
    sae = bench.build(SPEC, {"d_sae": 32, "k": 1, "degree": 1}).double()
    x = torch.zeros(1, 16, dtype=torch.float64)
    x[0, 3], x[0, 4] = 2.0, 1.0
    with torch.no_grad():
        sae.V.fill_(3.0)
        sae.variance.fill_(5.0)
        sae.b_enc.fill_(-10.0)
        latent = int((sae.coords[:, 0] == 3).nonzero()[0, 0])
        sae.b_enc[latent] = 0.5
    terms = sae.loss_and_grad(ActivationBatch(x, x), StepInfo(0, 0.0, 0, 1000))
    # f = 2 + 0.5; x_hat = 2.5 at coordinate 3; residual 0.5 there and -1 at coordinate 4.
    assert terms.codes.latents.tolist() == [latent]
    assert terms.codes.values.tolist() == [2.5]
    assert terms.reconstruction.tolist() == pytest.approx([(0.25 + 1.0) / 5.0])
    assert sae.b_enc.grad[latent].item() == pytest.approx(2 * 0.5 / 5.0)
    assert not sae.V.grad.any()  # a row of one coordinate has no direction to turn to
    assert sae.b_dec.grad[3].item() == pytest.approx(0.0)  # c moves x_hat down through f as it moves it up
    assert sae.b_dec.grad[4].item() == pytest.approx(-2 / 5.0)


def test_values_are_signed(bench: Any) -> None:
    sae = bench.build(SPEC, {"d_sae": 32, "k": 32, "degree": 5})
    assert (sae.encode(bench.data(20)).values < 0).any()


def test_nothing_of_size_d_sae_times_d_in_is_stored(bench: Any) -> None:
    sae = bench.build(SPEC, CONFIG)
    assert max(tensor.numel() for tensor in sae.state_dict().values()) == 32 * 5
    facts = sae.facts()
    assert facts["learned_values"] == 32 * 5 + 32 + 16
    assert facts["bytes_with_row_ids"] == 4 * facts["learned_values"] + 4 * 32 * 5 + 4
    assert facts["bytes_with_seed"] == 4 * facts["learned_values"] + 8 + 4


def test_directions_live_on_the_mask(bench: Any) -> None:
    sae = bench.build(SPEC, CONFIG)
    directions = sae.decoder_directions()
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(32))
    assert (directions != 0).sum(1).tolist() == [5] * 32
    assert torch.equal(directions, sae.encoder_directions())


def test_mask_is_that_of_the_mask_seed_whatever_the_init_seed(bench: Any) -> None:
    one, two = bench.build(SPEC, CONFIG, seed=1), bench.build(SPEC, CONFIG, seed=2)
    other = bench.build(SPEC, {**CONFIG, "mask_seed": 1}, seed=1)
    assert one.support_digest() == two.support_digest() != other.support_digest()
    assert not torch.equal(one.V, two.V)
    with pytest.raises(SuiteError, match="parent's frozen support is not that of this config"):
        bench.build(SPEC, {**CONFIG, "mask_seed": 1}, parent=one)


def test_paper_start_of_b_dec(bench: Any) -> None:
    assert not bench.start(bench.build(SPEC, {**CONFIG, "b_dec_init": "zero"}), bench.data()).b_dec.any()
    assert bench.start(bench.build(SPEC, CONFIG), bench.data()).b_dec.all()


def after(bench: Any, sae: Any, x: torch.Tensor, seen: int, resets: list[Any]) -> AfterStep:
    batch, step = ActivationBatch(x, x), StepInfo(0, seen / 1000, seen, 1000)
    return AfterStep(
        batch, sae.training_loss(batch, step), step, bench.generator(), lambda p, rows: resets.append((p, rows))
    )


def test_dead_latents_are_aimed_at_residuals(bench: Any) -> None:
    sae, x, resets = bench.start(bench.build(SPEC, CONFIG), bench.data()), bench.data(100), []
    with torch.no_grad():
        sae.b_enc[:3] = -100.0
    before = sae.V.detach().clone()
    sae.after_step(after(bench, sae, x, 0, resets))
    assert not resets
    assert sae.fired[:3].tolist() == [0, 0, 0]
    sae.after_step(after(bench, sae, x, 150, resets))
    moved = (before != sae.V).any(1)
    assert moved[:3].all()
    assert sae.b_enc[:3].tolist() == [0.0] * 3
    assert {id(p) for p, _ in resets} == {id(sae.V), id(sae.b_enc)}
    assert torch.equal(resets[0][1], moved.nonzero().squeeze(1))
    assert not sae.fired.any()


def test_no_aiming_when_almost_all_are_dead_or_at_the_end(bench: Any) -> None:
    for seen, silenced in ((150, 32), (900, 3)):
        sae, x, resets = bench.start(bench.build(SPEC, CONFIG), bench.data()), bench.data(100), []
        sae.config = ExpanderConfig(**CONFIG, reaim_below=10**6 if silenced == 32 else 5)
        sae.after_step(after(bench, sae, x, seen, resets))
        assert not resets


@pytest.mark.parametrize(
    ("change", "key", "words"),
    [
        ({"degree": 17}, "degree", "got 17 but d_in is 16. Use degree <= d_in."),
        ({"d_sae": 4, "degree": 3}, "degree", "Use degree >= 4."),
        ({"degree": 0}, "degree", "Use 1 or more"),
        ({"k": 40}, "k", "got 40 but d_sae is 32. Use k <= d_sae."),
        ({"mask_seed": -1}, "mask_seed", "Use 0 or more"),
        ({"reaim_every": 0.0}, "reaim_every", "fraction"),
    ],
)
def test_check(change: dict[str, Any], key: str, words: str) -> None:
    (problem,) = check(ExpanderConfig(**{**CONFIG, **change}), Site(16, 16))
    assert problem.key == key
    assert words in problem.message
