"""Gradients written out against autograd through dense matrices, for a fixed choice of latents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import SparseCodes
from saebench.nn import LinearSAE, fill_gradients, finish_bias_gradient, reconstruct
from saebench.nn.kernels.by_hand import kept

B, D, N = 9, 6, 15
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sae() -> LinearSAE:
    made = LinearSAE(D, N, generator()).double()
    with torch.no_grad():
        made.b_enc.copy_(torch.randn(N, generator=generator(1)))
        made.b_dec.copy_(torch.randn(D, generator=generator(2)))
    made.variance.fill_(3.5)
    return made


def pattern(share: float) -> Tensor:
    mask = torch.rand(B, N, generator=generator(3)) < share
    mask[2], mask[:, 4] = False, False  # a token without latents, a latent without tokens
    return mask


def squares(losses: Tensor) -> Tensor:
    return losses.square() / losses.square().sum()


def by_hand(module: Any, x: Tensor, target: Tensor, mask: Tensor, token_weights: Any, slope: float) -> Tensor:
    centred = x - module.b_dec.detach()
    pre = centred @ module.W_enc.detach().T + module.b_enc.detach()
    rows, latents = mask.nonzero(as_tuple=True)
    codes = SparseCodes(pre[rows, latents].sin(), latents, SparseCodes.offsets_from_rows(rows, B), N)
    made = reconstruct(module, codes, target, token_weights)
    order, offsets = fill_gradients(module, centred, codes, (made.df + slope) * pre[rows, latents].cos(), made.g)
    finish_bias_gradient(module)
    assert torch.equal(latents[order], latents.sort(stable=True).values)
    assert offsets.tolist() == [0, *mask.sum(0).cumsum(0).tolist()]
    torch.testing.assert_close(made.x_hat, codes.to_dense() @ module.W_dec.detach() + module.b_dec.detach())
    return made.losses


@pytest.mark.parametrize("token_weights", [None, squares])
@pytest.mark.parametrize("slope", [0.0, 0.7])
@pytest.mark.parametrize("share", [0.3, 1.0, 0.0])
def test_a_made_up_architecture(token_weights: Callable[[Tensor], Tensor] | None, slope: float, share: float) -> None:
    """`f = sin(z)` where the mask says so, and a penalty of `slope * sum(f)`; target differs from x."""
    x, target = (torch.randn(B, D, dtype=torch.float64, generator=generator(seed)) for seed in (4, 5))
    mask, ours, theirs = pattern(share), sae(), sae()
    losses = by_hand(ours, x, target, mask, token_weights, slope)
    f = torch.where(mask, ((x - theirs.b_dec) @ theirs.W_enc.T + theirs.b_enc).sin(), 0.0)
    expected = (f @ theirs.W_dec + theirs.b_dec - target).pow(2).sum(1) / theirs.variance
    weights = (
        torch.full((B,), 1 / B, dtype=torch.float64) if token_weights is None else token_weights(expected.detach())
    )
    ((weights * expected).sum() + slope * f.sum()).backward()
    torch.testing.assert_close(losses, expected.detach())
    for name in NAMES:
        torch.testing.assert_close(ours.get_parameter(name).grad, theirs.get_parameter(name).grad, msg=name)


def test_gradients_are_set_not_added() -> None:
    x = torch.randn(B, D, dtype=torch.float64, generator=generator(4))
    once, twice = sae(), sae()
    by_hand(once, x, x, pattern(0.3), None, 0.0)
    by_hand(twice, 5 * x, 2 * x, pattern(0.8), None, 1.0)
    by_hand(twice, x, x, pattern(0.3), None, 0.0)
    for name in NAMES:
        assert torch.equal(once.get_parameter(name).grad, twice.get_parameter(name).grad)


def test_large_gradients_keep_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saebench.nn.kernels.products.KEPT_BYTES", 0)
    x = torch.randn(B, D, dtype=torch.float64, generator=generator(4))
    module, fresh = sae(), sae()
    by_hand(module, 3 * x, x, pattern(0.8), None, 0.0)
    before = {name: module.get_parameter(name).grad.data_ptr() for name in ("W_enc", "W_dec")}
    by_hand(module, x, x, pattern(0.3), None, 0.0)
    by_hand(fresh, x, x, pattern(0.3), None, 0.0)
    for name, place in before.items():
        assert module.get_parameter(name).grad.data_ptr() == place == kept(module.get_parameter(name)).data_ptr()
    for name in NAMES:
        assert torch.equal(module.get_parameter(name).grad, fresh.get_parameter(name).grad)
