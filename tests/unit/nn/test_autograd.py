"""Sparse products against dense ones, values and gradients, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from saebench.api import SparseCodes
from saebench.nn import bag_sum, decode, linear_threshold, linear_topk, sparse_linear
from saebench.nn.kernels import backends

B, D, N, K = 6, 5, 11, 3


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ragged() -> SparseCodes:
    """Codes with an empty row, an empty last row and an explicit zero."""
    z = rand(B, N, seed=3).relu()
    z[2] = 0
    z[-1] = 0
    codes = SparseCodes.from_dense(z)
    codes.values[1] = 0.0
    return codes


def leaf(tensor: Tensor) -> Tensor:
    return tensor.clone().requires_grad_()


def test_bag_sum_by_hand() -> None:
    matrix = torch.tensor([[1.0, 2.0], [10.0, 20.0]])
    out = bag_sum(matrix, torch.tensor([0, 1, 1]), torch.tensor([0, 2, 2, 3]), torch.tensor([1.0, 0.5, 2.0]))
    assert out.tolist() == [[6.0, 12.0], [0.0, 0.0], [20.0, 40.0]]


def test_bag_sum_of_nothing() -> None:
    none = torch.zeros(0, dtype=torch.long)
    assert bag_sum(torch.ones(2, 3), none, torch.zeros(5, dtype=torch.long), torch.zeros(0)).tolist() == [[0.0] * 3] * 4


def test_decode_equals_dense_with_all_gradients() -> None:
    codes, W, b, weight = ragged(), rand(N, D, seed=1), rand(D, seed=2), rand(B, D, seed=4)
    values, W1, b1 = leaf(codes.values), leaf(W), leaf(b)
    x_hat = decode(SparseCodes(values, codes.latents, codes.offsets, N), W1, b1)
    (x_hat * weight).sum().backward()

    dense, W2, b2 = leaf(codes.to_dense()), leaf(W), leaf(b)
    expected = dense @ W2 + b2
    (expected * weight).sum().backward()

    torch.testing.assert_close(x_hat, expected)
    torch.testing.assert_close(W1.grad, W2.grad)
    torch.testing.assert_close(b1.grad, b2.grad)
    assert dense.grad is not None
    torch.testing.assert_close(values.grad, dense.grad[codes.rows(), codes.latents])


@pytest.mark.real("gradcheck writes into what autograd saved")
def test_decode_gradcheck() -> None:
    codes = ragged()

    def f(values: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return decode(SparseCodes(values, codes.latents, codes.offsets, N), W, b)

    assert torch.autograd.gradcheck(f, (leaf(codes.values), leaf(rand(N, D)), leaf(rand(D))))


def test_decode_without_any_entry() -> None:
    empty = SparseCodes.from_dense(torch.zeros(3, N, dtype=torch.float64))
    W = leaf(rand(N, D))
    decode(SparseCodes(leaf(empty.values), empty.latents, empty.offsets, N), W).sum().backward()
    assert W.grad is not None
    assert not W.grad.any()


def test_linear_topk_equals_masked_dense_with_all_gradients() -> None:
    x, W, b, weight = rand(B, D), rand(N, D, seed=1), rand(N, seed=2), rand(B, N, seed=4)
    x1, W1, b1 = leaf(x), leaf(W), leaf(b)
    codes = linear_topk(x1, W1, b1, K)
    (codes.to_dense() * weight).sum().backward()

    x2, W2, b2 = leaf(x), leaf(W), leaf(b)
    pre = functional.linear(x2, W2, b2)
    mask = torch.zeros_like(pre).scatter(1, pre.topk(K, dim=1).indices, 1.0)
    (pre * mask * weight).sum().backward()

    torch.testing.assert_close(codes.to_dense(), pre * mask)
    for one, two in ((x1, x2), (W1, W2), (b1, b2)):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.real("gradcheck writes into what autograd saved")
def test_linear_topk_gradcheck() -> None:
    def f(x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        return linear_topk(x, W, b, K).values

    assert torch.autograd.gradcheck(f, (leaf(rand(B, D)), leaf(rand(N, D, seed=1)), leaf(rand(N, seed=2))))


def test_sparse_linear_without_bias_and_without_input_gradient() -> None:
    x, W = rand(B, D), leaf(rand(N, D, seed=1))
    codes = ragged()
    values = (x[codes.rows()] * W.detach()[codes.latents]).sum(1)
    out = sparse_linear(x, W, None, values, codes.latents, codes.offsets)
    assert torch.equal(out, values)
    out.sum().backward()
    dense = leaf(W.detach())
    (x @ dense.T)[codes.rows(), codes.latents].sum().backward()
    torch.testing.assert_close(W.grad, dense.grad)


@pytest.mark.parametrize("threshold", [0.0, "vector"])
def test_linear_threshold_equals_masked_dense(threshold: float | str) -> None:
    x, W, b = rand(B, D), rand(N, D, seed=1), rand(N, seed=2)
    cut = rand(N, seed=5).abs() if threshold == "vector" else torch.tensor(float(threshold), dtype=torch.float64)
    x1, W1, b1 = leaf(x), leaf(W), leaf(b)
    codes = linear_threshold(x1, W1, b1, cut)
    codes.values.pow(2).sum().backward()
    x2, W2, b2 = leaf(x), leaf(W), leaf(b)
    pre = functional.linear(x2, W2, b2)
    (pre * (pre > cut)).pow(2).sum().backward()
    torch.testing.assert_close(codes.to_dense(), pre * (pre > cut))
    for one, two in ((x1, x2), (W1, W2), (b1, b2)):
        torch.testing.assert_close(one.grad, two.grad)


def test_gradients_are_the_same_bits_twice() -> None:
    x, W = rand(64, D).float(), rand(300, D, seed=1).float()

    def gradient() -> Tensor:
        W_enc, W_dec = leaf(W), leaf(W)
        decode(linear_topk(x, W_enc, None, 7), W_dec).pow(2).sum().backward()
        assert W_enc.grad is not None
        assert W_dec.grad is not None
        return torch.cat([W_enc.grad, W_dec.grad])

    assert torch.equal(gradient(), gradient())


def test_more_than_32767_latents() -> None:
    n = 40_000
    latents = torch.tensor([39_999, 0, 33_000, 39_999])
    values = leaf(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    W = leaf(rand(n, 2))
    decode(SparseCodes(values, latents, torch.tensor([0, 2, 4]), n), W).sum().backward()
    assert W.grad is not None
    assert W.grad[39_999].tolist() == [5.0, 5.0]
    assert W.grad[0].tolist() == [2.0, 2.0]
    assert W.grad[33_000].tolist() == [3.0, 3.0]
    assert int((W.grad != 0).any(1).sum()) == 3


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_float32_codes_and_gradients_are_near_those_of_float64(name: str) -> None:
    x, W, b, cut = rand(300, 24), rand(96, 24, seed=1), rand(96, seed=2), rand(96, seed=5).abs() + 2
    weight = rand(300, 96, seed=4)

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        inputs = [leaf(t.to(dtype)) for t in (x, W, b)]
        total = linear_topk(*inputs, 5).to_dense() + linear_threshold(*inputs, cut.to(dtype)).to_dense()
        (total * weight.to(dtype)).sum().backward()
        return [total.detach(), *(t.grad for t in inputs)]

    with backends.force(name):
        found = gradients(torch.float32)
    for ours, theirs in zip(found, gradients(torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=1e-5 * float(theirs.abs().max()))
