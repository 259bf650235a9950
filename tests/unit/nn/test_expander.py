"""Masks, and products with masked values against dense ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

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
    topk,
)
from saebench.nn import expander as kernels
from saebench.nn.expander import expander_gradients, expander_topk

B, D, N, G, K = 6, 8, 12, 3, 4
PINNED = [[3, 4, 5], [0, 2, 3], [1, 2, 3], [0, 1, 2]]
PINNED_DIGEST = "11741e28f0ef2805a82962ba724ba4579df2c89b902927c7f629a73fa4efb76e"


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


GRADCHECK = pytest.mark.real("gradcheck writes into what autograd saved")
DRAWN = pytest.mark.cpu("masks are drawn on the processor, so that a seed means the same mask everywhere")


@DRAWN
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


@DRAWN
def test_mask_is_pinned() -> None:
    """The stream is ours: these numbers must never change (a record's seed stands for its mask)."""
    assert sample_mask(4, 6, 3, 0).tolist() == PINNED
    assert mask_digest(sample_mask(512, 64, 7, 0)) == PINNED_DIGEST


@DRAWN
def test_mask_depends_on_the_seed_alone() -> None:
    assert torch.equal(sample_mask(50, 20, 5, 3), sample_mask(50, 20, 5, 3))
    assert not torch.equal(sample_mask(50, 20, 5, 3), sample_mask(50, 20, 5, 4))
    assert mask_digest(sample_mask(50, 20, 5, 3)) != mask_digest(sample_mask(50, 20, 5, 4))


@DRAWN
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
    return rand(B, D), rand(N, G, seed=1), rand(N, seed=2), torch.as_tensor(sample_mask(N, D, G, 0))


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


@GRADCHECK
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


@settings(max_examples=150, deadline=None)
@given(
    n=st.integers(1, 300),
    columns=st.integers(1, 5),
    low=st.sampled_from([-1, -4, -1000]),
    seed=st.integers(0, 9999),
    data=st.data(),
)
def test_top_of_columns_is_topk_whatever_the_ties(
    n: int, columns: int, low: int, seed: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, min(n, 40)))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randint(low, -low + 1, (n, columns), generator=generator).float()
    values, latents = kernels._top_of_columns(z, k)
    expected_values, expected = topk(z.T, k)
    assert torch.equal(latents, expected)
    assert torch.equal(values, expected_values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "k"), [(50, 0), (50, 1), (50, 50), (1021, 3), (4096, 7), (4103, 32)])
def test_topk_equals_that_of_all_pre_activations_bit_for_bit(n: int, k: int, dtype: torch.dtype) -> None:
    coords = torch.as_tensor(sample_mask(n, 24, 5, 0))
    x, W, b = (t.to(dtype) for t in (rand(600, 24), rand(n, 5, seed=1), rand(n, seed=2)))
    x[5] = 0.0
    b[n // 2 :] = 0.0  # so that token 5 has more equal entries than k
    codes, plain = expander_topk(x, W, b, coords, k), encode_topk(expander_pre_acts(x, W, b, coords), k)
    assert torch.equal(codes.latents, plain.latents)
    assert torch.equal(codes.values, plain.values)
    assert torch.equal(codes.offsets, plain.offsets)


def test_topk_refuses_k_beyond_the_latents() -> None:
    x, W, b, coords = setting()
    with pytest.raises(ValueError, match="k must lie in"):
        expander_topk(x, W, b, coords, N + 1)


@pytest.mark.cpu("on a card blocks are larger")
def test_no_more_than_a_block_of_pre_activations_exists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    n, sizes = 4096, []
    coords, W, b, x = torch.as_tensor(sample_mask(n, 24, 5, 0)), rand(n, 5, seed=1), rand(n, seed=2), rand(100, 24)
    whole = expander_topk(x, W, b, coords, 4)
    original = kernels._pre_acts

    def seen(*args: Tensor) -> Tensor:
        pre = original(*args)
        sizes.append(pre.numel() * pre.element_size())
        return pre

    monkeypatch.setattr(kernels, "_pre_acts", seen)
    monkeypatch.setitem(kernels.BLOCK, "cpu", (32 * n * 8 + 1, 256))
    parts = expander_topk(x, W, b, coords, 4)
    assert sizes == [32 * n * 8] * 3 + [4 * n * 8]
    assert torch.equal(parts.values, whole.values)
    assert torch.equal(parts.latents, whole.latents)


def ragged() -> SparseCodes:
    """Codes with 0 to 3 entries a token, one of them zero."""
    dense = rand(B, N, seed=5) * (rand(B, N, seed=6) > 1.2)
    dense[2] = 0.0
    codes = SparseCodes.from_dense(dense)
    values = codes.values.clone()
    values[0] = 0.0
    return replace(codes, values=values)


@pytest.mark.parametrize("kind", ["topk", "ragged", "none"])
def test_gradients_equal_those_of_autograd(kind: str) -> None:
    x, W, b, coords = setting()
    codes = {
        "topk": lambda: expander_topk(x, W, b, coords, K),
        "ragged": ragged,
        "none": lambda: SparseCodes.from_dense(torch.zeros(B, N, dtype=torch.float64)),
    }[kind]()
    shift = torch.zeros(D, dtype=torch.float64, requires_grad=True)
    W_leaf, b_leaf, weight = W.clone().requires_grad_(), b.clone().requires_grad_(), rand(B, D, seed=4)
    live = replace(codes, values=expander_values(x + shift, W_leaf, b_leaf, coords, codes))
    (expander_decode(live, W_leaf, coords, D) * weight).sum().backward()
    ours = expander_gradients(weight, x, codes, W, coords)
    for mine, leaf in zip(ours, (W_leaf, b_leaf, shift), strict=True):
        torch.testing.assert_close(mine, leaf.grad)


@pytest.fixture
def deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("deterministic")
def test_same_bits_every_time_under_deterministic_algorithms() -> None:
    n, d = 2048, 64
    coords, x, W, b = (
        torch.as_tensor(sample_mask(n, d, 7, 0)),
        rand(300, d).float(),
        rand(n, 7, seed=1).float(),
        rand(n, seed=2).float(),
    )

    def once() -> tuple[Tensor, ...]:
        codes = expander_topk(x, W, b, coords, 16)
        x_hat = expander_decode(codes, W, coords, d)
        return codes.values, codes.latents, x_hat, *expander_gradients(x_hat - x, x, codes, W, coords)

    for first, second in pairwise(once() for _ in range(3)):
        assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_an_empty_batch() -> None:
    x, W, b, coords = setting()
    codes = expander_topk(x[:0], W, b, coords, K)
    assert codes.n_rows == 0
    assert expander_decode(codes, W, coords, D).shape == (0, D)
