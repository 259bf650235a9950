"""Top-k: the obvious reference is a stable sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saebench.nn import batch_topk, encode_topk, topk
from saebench.nn.selection import linear_select


def reference(pre: torch.Tensor, k: int) -> torch.Tensor:
    """Ids of the k largest of each row by a stable descending sort, ascending."""
    return pre.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 9),
    data=st.data(),
)
def test_ties_go_to_the_lowest_index(rows: int, n: int, data: st.DataObject) -> None:
    cells = data.draw(st.lists(st.integers(-2, 2), min_size=rows * n, max_size=rows * n))
    k = data.draw(st.integers(0, n))
    pre = torch.tensor(cells, dtype=torch.float32).reshape(rows, n)
    values, latents = topk(pre, k)
    assert torch.equal(latents, reference(pre, k))
    assert torch.equal(values, pre.gather(1, latents))


def test_hand_computed() -> None:
    pre = torch.tensor([[1.0, 3.0, 3.0, 3.0], [-5.0, -4.0, -3.0, -4.0]])
    values, latents = topk(pre, 2)
    assert latents.tolist() == [[1, 2], [1, 2]]
    assert values.tolist() == [[3.0, 3.0], [-4.0, -3.0]]


def test_large_random_rows_agree_with_the_sort() -> None:
    pre = torch.randn(64, 777, generator=torch.Generator().manual_seed(0))
    assert torch.equal(topk(pre, 20)[1], reference(pre, 20))


@pytest.mark.parametrize("k", [-1, 5])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=r"k must lie in \[0, 4\]"):
        topk(torch.zeros(1, 4), k)


def test_encode_topk_gradient_reaches_kept_entries_only() -> None:
    pre = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    encode_topk(pre, 2).values.sum().backward()
    assert pre.grad is not None
    assert pre.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_batch_topk_counts_over_the_whole_batch() -> None:
    pre = torch.tensor([[5.0, 4.0, 3.0], [1.0, 0.0, 2.0]])
    values, latents, offsets = batch_topk(pre, 2)
    assert values.tolist() == [5.0, 4.0, 3.0, 2.0]
    assert latents.tolist() == [0, 1, 2, 2]
    assert offsets.tolist() == [0, 3, 4]


def test_batch_topk_ties_go_to_the_earliest_token() -> None:
    _, latents, offsets = batch_topk(torch.ones(3, 2), 1)
    assert latents.tolist() == [0, 1, 0]
    assert offsets.tolist() == [0, 2, 3, 3]


def exact_latents(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None, k: int) -> torch.Tensor:
    pre = x.double() @ W.double().T + (0 if b is None else b.double())
    return torch.sort(pre, dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-6, 1e-7, 0.0])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_selection_is_that_of_float64_however_close_the_entries(spread: float, biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 48, generator=generator)
    W = torch.randn(1, 48, generator=generator) + spread * torch.randn(96, 48, generator=generator)
    b = 1e-7 * torch.randn(96, generator=generator) if biased else None
    values, latents = linear_select(x, W, b, 7)
    assert torch.equal(latents, exact_latents(x, W, b, 7))
    assert torch.equal(values, torch.nn.functional.linear(x, W, b).gather(1, latents))
    plain = topk(torch.nn.functional.linear(x, W, b), 7)[1]
    if spread == 1e-7:  # the case is real: float32 alone chooses otherwise
        assert not torch.equal(plain, latents)


def test_linear_selection_among_few_close_ones_looks_no_further() -> None:
    generator = torch.Generator().manual_seed(1)
    x, W = torch.randn(32, 24, generator=generator), torch.randn(200, 24, generator=generator)
    W[50:54] = W[10] + 1e-8 * torch.randn(4, 24, generator=generator)
    for k in (1, 5, 100, 199, 200):
        assert torch.equal(linear_select(x, W, None, k)[1], exact_latents(x, W, None, k))
