"""Top-k: the obvious reference is a stable sort."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saebench.nn import batch_topk, encode_topk, topk
from saebench.nn.kernels import backends
from saebench.nn.kernels.dense_topk import linear_columns, select_reference
from saebench.nn.kernels.screen import grown
from saebench.nn.kernels.select import Workspace, linear_select
from saebench.testing import example_activations


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


SCREEN = pytest.mark.cpu("the bfloat16 screen is for the processor")


@pytest.fixture(params=backends.BACKENDS)
def backend(request: pytest.FixtureRequest, device: str) -> Any:
    if device != "cpu" and request.param != "plain":
        pytest.skip("about the processor: a card has the back end plain alone")
    with backends.force(request.param):
        yield request.param


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-6, 1e-7, 0.0])
@pytest.mark.parametrize("biased", [True, False])
def test_linear_selection_is_that_of_float64_however_close_the_entries(
    spread: float, biased: bool, backend: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 48, generator=generator)
    W = torch.randn(1, 48, generator=generator) + spread * torch.randn(96, 48, generator=generator)
    b = 1e-7 * torch.randn(96, generator=generator) if biased else None
    values, latents, *_ = linear_select(x, W, b, 7)
    assert torch.equal(latents, exact_latents(x, W, b, 7))
    torch.testing.assert_close(values, torch.nn.functional.linear(x, W, b).gather(1, latents), rtol=0, atol=2e-5)
    plain = topk(torch.nn.functional.linear(x, W, b), 7)[1]
    if spread == 1e-7:  # the case is real: float32 alone chooses otherwise
        assert not torch.equal(plain, latents)


def test_linear_selection_among_few_close_ones_looks_no_further(backend: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x, W = torch.randn(32, 24, generator=generator), torch.randn(200, 24, generator=generator)
    W[50:54] = W[10] + 1e-8 * torch.randn(4, 24, generator=generator)
    for k in (1, 5, 100, 199, 200):
        assert torch.equal(linear_select(x, W, None, k).latents, exact_latents(x, W, None, k))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_back_end_chooses_what_float64_does(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    k = data.draw(hard.ks(made.W.shape[0]))
    found = {}
    for name in backends.BACKENDS:
        with backends.force(name):
            found[name] = linear_select(made.x, made.W, made.b, k)
        hard.assert_chosen(made, k, found[name].latents)
        truth = made.exact.gather(1, found[name].latents)
        size = made.x.double().norm(dim=1) * made.W.double().norm(dim=1).amax()
        size += 0 if made.b is None else made.b.double().abs().amax()
        bound = (made.x.shape[1] + 2) * 2.0**-24 * size + 1e-35
        fits = truth.abs() < 1e38
        off = (found[name].values.double() - truth).abs() <= bound.unsqueeze(1) * 1.01
        assert bool((off | ~fits).all())
    hard.assert_chosen(made, k, select_reference(made.x, made.W, made.b, k)[1])
    assert found["plain"].fallback_rows == found["onednn"].fallback_rows == 0
    assert 0 <= found["bf16-screen"].fallback_rows <= len(made.x)


def integers(rows: int, d: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Small whole numbers: every product is exact, and ties are everywhere."""
    generator = torch.Generator().manual_seed(seed)
    x, W, b = (torch.randint(-2, 3, shape, generator=generator).float() for shape in ((rows, d), (n, d), (n,)))
    return x, W, b


@settings(max_examples=150, deadline=None)
@given(rows=st.integers(1, 4), d=st.integers(1, 9), n=st.integers(2, 300), seed=st.integers(0, 10**6), data=st.data())
def test_exact_ties_go_to_the_lowest_index_on_every_back_end(
    rows: int, d: int, n: int, seed: int, data: st.DataObject
) -> None:
    x, W, b = integers(rows, d, n, seed)
    k = data.draw(st.one_of(st.sampled_from([1, n - 1]), st.integers(1, min(n, 40))))
    expected = exact_latents(x, W, b, k)
    for name in backends.BACKENDS:
        with backends.force(name):
            assert torch.equal(linear_select(x, W, b, k).latents, expected), name


def test_more_rows_than_a_block_and_results_that_later_calls_leave_alone(backend: str) -> None:
    generator = torch.Generator().manual_seed(3)
    x, W = torch.randn(1100, 24, generator=generator), torch.randn(96, 24, generator=generator)
    b = torch.randn(96, generator=generator)
    first = linear_select(x, W, b, 5)
    kept = first.values.clone(), first.latents.clone()
    linear_select(x.flip(0) * 3, W.flip(0), b, 5)
    assert torch.equal(first.latents, exact_latents(x, W, b, 5))
    assert torch.equal(first.values, kept[0])
    assert torch.equal(first.latents, kept[1])
    alone = linear_select(x[700:701], W, b, 5)
    assert torch.equal(alone.latents, first.latents[700:701])
    transposed = linear_select(x.T.contiguous().T, W.T.contiguous().T, b, 5)
    assert torch.equal(transposed.latents, first.latents)


@pytest.mark.parametrize("seed", range(5))
def test_latents_that_bfloat16_has_in_the_wrong_order(hard: Any, backend: str, seed: int) -> None:
    x, W = hard.opposed(seed)
    low = (x.bfloat16() @ W.bfloat16().T)[0].tolist()
    assert low[0] > low[1], "the case is real"
    assert linear_select(x, W, None, 1).latents.tolist() == exact_latents(x, W, None, 1).tolist() == [[1]]


def test_equal_latents_are_tied_wherever_they_stand(backend: str) -> None:
    """Matrix products sum the last few columns of a matrix in another order than the rest."""
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        n, d = (int(torch.randint(low, high, (1,), generator=generator)) for low, high in ((2, 80), (1, 60)))
        x, W = torch.randn(3, d, generator=generator), torch.randn(n, d, generator=generator)
        W = W[torch.randint(0, max(1, n // 3), (n,), generator=generator)]
        v = torch.stack([(token.double() * W.double()).sum(1) for token in x])
        for k in (1, n // 2, n - 1):
            expected = v.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
            assert torch.equal(linear_select(x, W, None, k).latents, expected)
            assert torch.equal(select_reference(x, W, None, k)[1], expected)


@SCREEN
def test_rows_the_screen_cannot_decide_are_counted_and_exact() -> None:
    generator = torch.Generator().manual_seed(4)
    x, W = torch.randn(600, 16, generator=generator), torch.randn(256, 16, generator=generator).abs()
    x[:20] = -x[:20].abs()  # everything negative: no cut
    x[20:40] = 0.0
    b = torch.zeros(256)
    with backends.force("bf16-screen"):
        found = linear_select(x, W, b, 3)
        assert 40 <= found.fallback_rows < 600
        assert torch.equal(found.latents, exact_latents(x, W, b, 3))
        crowded = linear_select(torch.ones(9, 16), torch.ones(256, 16), b, 3)  # too many entries reach the cut
        assert crowded.fallback_rows == 9
        assert crowded.latents.tolist() == [[0, 1, 2]] * 9


@SCREEN
def test_few_rows_of_ordinary_activations_fall_back() -> None:
    x = example_activations(2048, 64)
    W = torch.nn.functional.normalize(torch.randn(1024, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    with backends.force("bf16-screen"):
        found = linear_select(x - x.mean(0), W, torch.zeros(1024), 16)
    assert found.fallback_rows / 2048 < 0.005
    assert torch.equal(found.latents, exact_latents(x - x.mean(0), W, None, 16))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_a_token_that_is_not_finite_leaves_the_others_alone(backend: str, bad: float) -> None:
    generator = torch.Generator().manual_seed(5)
    x, W = torch.randn(30, 16, generator=generator), torch.randn(64, 16, generator=generator)
    x[7, 3] = bad
    found = linear_select(x, W, None, 4)
    others = torch.arange(30) != 7
    assert torch.equal(found.latents[others], exact_latents(x[others], W, None, 4))
    assert found.values[others].isfinite().all()
    assert not found.values[7].isfinite().all()
    assert bool((found.latents[7].diff() > 0).all())
    assert found.fallback_rows == (backend == "bf16-screen")
    assert not linear_select(x, W.clone().fill_(bad), None, 4).values.isfinite().any()


def test_an_entry_a_rounding_beyond_reach_is_not_lost(backend: str) -> None:
    """Where `near - kth` just exceeds the reach, `kth + reach` may round up to `near`: it must still count as above."""
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x = torch.ones(1, 1) * (1 + torch.rand(1, 1, generator=generator))
        steps = torch.arange(40, dtype=torch.float32).sub(20).mul(2.0**-23)
        W = (1 + steps[torch.randperm(40, generator=generator)]).unsqueeze(1)
        for k in (1, 3, 10, 20):
            assert torch.equal(linear_select(x, W, None, k).latents, exact_latents(x, W, None, k))


def test_columns_come_out_of_the_same_product(backend: str) -> None:
    generator = torch.Generator().manual_seed(6)
    x, W = torch.randn(600, 16, generator=generator), torch.randn(64, 16, generator=generator)
    b, ids = torch.randn(64, generator=generator), torch.tensor([3, 4, 40, 63])
    found = linear_select(x, W, b, 4, ids)
    low = backend == "bf16-screen"
    assert found.columns.dtype == (torch.bfloat16 if low else torch.float32)
    expected = linear_columns(x, W, b, ids)
    torch.testing.assert_close(found.columns.float(), expected, rtol=1e-2 if low else 1e-5, atol=1e-1 if low else 1e-5)
    assert linear_select(x, W, b, 4).columns is None
    assert linear_select(x, W, b, 4, ids[:0]).columns.shape == (600, 0)
    assert torch.equal(found.latents, linear_select(x, W, b, 4).latents)


def test_two_selections_of_a_step_both_keep_their_columns(backend: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x, W = torch.randn(300, 16, generator=generator), torch.randn(64, 16, generator=generator)
    ids = torch.tensor([1, 5, 9])
    for spaces in ((None, None), (Workspace(), Workspace())):
        first = linear_select(x, W, None, 4, ids, spaces[0])
        before = first.columns.clone()
        second = linear_select(-2 * x, W, None, 4, ids, spaces[1])
        assert torch.equal(first.columns, before)
        assert not torch.equal(second.columns, before)
    one = Workspace()
    kept = linear_select(x, W, None, 4, ids, one).columns
    assert (
        linear_select(x, W, None, 4, ids, one).columns.data_ptr() == kept.data_ptr()
    )  # its owner's memory is used again


@pytest.mark.parametrize("k", [0, 64])
def test_none_and_all(backend: str, k: int) -> None:
    x, W = torch.randn(5, 16, generator=torch.Generator().manual_seed(0)), torch.ones(64, 16)
    assert linear_select(x, W, None, k).latents.tolist() == [list(range(k))] * 5
    assert linear_select(x[:0], W, None, 7).latents.shape == (0, 7)


def test_memory_that_is_asked_for_a_little_more_each_time_is_seldom_made_anew() -> None:
    """Each time leaves a hole in the heap that the next does not fit into."""
    workspace, made, last = Workspace(), 0, None
    for columns in range(1, 1000):
        found = workspace.columns(10, columns, torch.float32)
        assert found.shape == (10, columns)
        made, last = made + (found.data_ptr() != last), found.data_ptr()
    assert made < 25
    assert workspace.columns(10, 3, torch.bfloat16).dtype == torch.bfloat16
    assert grown(torch.empty(10), 4, torch.float32).numel() == 10
