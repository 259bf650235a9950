"""Masks, and products with masked values against dense ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench.api import SparseCodes
from saebench.nn import (
    encode_topk,
    expander_decode,
    expander_dense,
    expander_pre_acts,
    expander_values,
    mask_digest,
    sample_mask,
)

B, D, N, G, K = 6, 8, 12, 3, 4
PINNED = [[3, 4, 5], [0, 2, 3], [1, 2, 3], [0, 1, 2]]
PINNED_DIGEST = "11741e28f0ef2805a82962ba724ba4579df2c89b902927c7f629a73fa4efb76e"


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(d_in=st.integers(1, 20), d_sae=st.integers(1, 40), seed=st.integers(-3, 2**63), data=st.data())
def test_masks_are_left_regular_and_leave_no_coordinate_out(
    d_in: int, d_sae: int, seed: int, data: st.DataObject
) -> None:
    degree = data.draw(st.integers(-(-d_in // d_sae), d_in)) if d_sae * d_in >= d_in else 1
    coords = sample_mask(d_sae, d_in, degree, seed)
    assert coords.shape == (d_sae, degree)
    assert coords.dtype == torch.int32
    assert (coords.diff(dim=1) > 0).all()
    assert set(coords.flatten().tolist()) == set(range(d_in))


def test_mask_is_pinned() -> None:
    """The stream is ours: these numbers must never change (a record's seed stands for its mask)."""
    assert sample_mask(4, 6, 3, 0).tolist() == PINNED
    assert mask_digest(sample_mask(512, 64, 7, 0)) == PINNED_DIGEST


def test_mask_depends_on_the_seed_alone() -> None:
    assert torch.equal(sample_mask(50, 20, 5, 3), sample_mask(50, 20, 5, 3))
    assert not torch.equal(sample_mask(50, 20, 5, 3), sample_mask(50, 20, 5, 4))
    assert mask_digest(sample_mask(50, 20, 5, 3)) != mask_digest(sample_mask(50, 20, 5, 4))


def test_coordinates_and_pairs_are_uniform() -> None:
    d, degree, n = 10, 3, 60_000
    coords = sample_mask(n, d, degree, 1).long()
    dense = torch.zeros(n, d).scatter(1, coords, 1.0)
    shares = dense.mean(0)
    assert (shares - degree / d).abs().max() < 0.01
    pairs = (dense.T @ dense / n)[~torch.eye(d, dtype=torch.bool)]
    assert (pairs - degree * (degree - 1) / (d * (d - 1))).abs().max() < 0.01


@pytest.mark.parametrize(("args", "words"), [((4, 6, 7, 0), "degree must lie in"), ((2, 9, 4, 0), "cannot cover 9")])
def test_impossible_masks(args: tuple[int, int, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sample_mask(*args)


def setting() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return rand(B, D), rand(N, G, seed=1), rand(N, seed=2), sample_mask(N, D, G, 0)


def test_pre_acts_equal_dense() -> None:
    x, W, b, coords = setting()
    torch.testing.assert_close(expander_pre_acts(x, W, b, coords), x @ expander_dense(W, coords, D).T + b)


def test_encode_and_decode_equal_dense_with_all_gradients() -> None:
    x, W, b, coords = setting()
    weight = rand(B, D, seed=4)
    one = [t.clone().requires_grad_() for t in (x, W, b)]
    two = [t.clone().requires_grad_() for t in (x, W, b)]

    codes = encode_topk(expander_pre_acts(one[0], one[1], one[2], coords), K)
    codes = replace(codes, values=expander_values(one[0], one[1], one[2], coords, codes))
    x_hat = expander_decode(codes, one[1], coords, D)
    (x_hat * weight).sum().backward()

    dense = expander_dense(two[1], coords, D)
    pre = two[0] @ dense.T + two[2]
    f = pre * torch.zeros_like(pre).scatter(1, pre.topk(K, dim=1).indices, 1.0)
    expected = f @ dense
    (expected * weight).sum().backward()

    torch.testing.assert_close(x_hat, expected)
    for a, c in zip(one, two, strict=True):
        torch.testing.assert_close(a.grad, c.grad)


def test_decode_gradcheck() -> None:
    x, W, b, coords = setting()
    codes = encode_topk(expander_pre_acts(x, W, b, coords), K)

    def f(values: Tensor, weights: Tensor) -> Tensor:
        return expander_decode(replace(codes, values=values), weights, coords, D)

    assert torch.autograd.gradcheck(f, (codes.values.clone().requires_grad_(), W.clone().requires_grad_()))


def test_decode_of_nothing() -> None:
    _, W, _, coords = setting()
    empty = SparseCodes.from_dense(torch.zeros(2, N, dtype=torch.float64))
    assert expander_decode(empty, W, coords, D).tolist() == [[0.0] * D] * 2
