"""Entries above a threshold and the largest of a batch, on every back end against the whole float64 product."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench.api import SparseCodes
from saebench.nn import batch_topk
from saebench.nn.kernels import backends
from saebench.nn.kernels.above import Entries, linear_above
from saebench.nn.kernels.select_batch import batch_topk_reference, linear_batch_topk


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dense(found: Entries, n: int) -> tuple[Tensor, Tensor]:
    """Values and where they stand, after a look at the CSR form."""
    codes = SparseCodes(found.values, found.latents, found.offsets, n)
    rows = codes.rows()
    assert int(found.offsets[-1]) == found.values.numel() == found.latents.numel()
    assert bool((torch.diff(rows * n + found.latents) > 0).all()), "ascending, each once"
    mask = torch.zeros(codes.n_rows, n, dtype=torch.bool)
    mask[rows, found.latents] = True
    return codes.to_dense(), mask


def rounding(made: Any) -> Tensor:
    """`[B, 1]`: what float32 may be off by."""
    size = made.x.double().norm(dim=1) * made.W.double().norm(dim=1).amax()
    size += 0 if made.b is None else made.b.double().abs().amax()
    return ((made.x.shape[1] + 2) * 2.0**-24 * size * 1.01 + 1e-35).unsqueeze(1)


@pytest.fixture(params=backends.BACKENDS)
def backend(request: pytest.FixtureRequest, device: str) -> Any:
    if device != "cpu" and request.param != "plain":
        pytest.skip("about the processor: a card has the back end plain alone")
    with backends.force(request.param):
        yield request.param


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_entries_above_are_those_of_float64_away_from_rounding(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    n, spread = made.W.shape[0], float(made.exact.abs().mean())
    if not spread < 1e35:
        return
    kind = data.draw(st.sampled_from(["zero", "scalar", "vector", "far", "low"]))
    noise = rand(n, seed=1)
    cuts = {
        "zero": torch.zeros(n),
        "scalar": torch.full((n,), spread),
        "vector": spread * noise,
        "far": spread * noise * 1e3,  # latents' thresholds of very different sizes
        "low": torch.full((n,), -1e3 * spread),
    }[kind].float()
    threshold: Tensor | float = float(cuts[0]) if kind in ("zero", "scalar") else cuts
    slack = rounding(made)
    for name in backends.BACKENDS:
        with backends.force(name):
            found = linear_above(made.x, made.W, made.b, threshold)
        values, mask = dense(found, n)
        assert bool(mask[made.exact > cuts.double() + slack].all()), name
        assert not bool(mask[made.exact < cuts.double() - slack].any()), name
        assert bool((values > cuts)[mask].all()), name
        assert bool(((values.double() - made.exact).abs() <= slack)[mask].all()), name


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_batch_topk_chooses_the_largest_of_float64_away_from_rounding(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    n = made.W.shape[0]
    if not float(made.exact.abs().max()) < 1e37:
        return
    k = data.draw(hard.ks(n))
    slack, n_chosen = rounding(made), k * len(made.x)
    kth = made.exact.flatten().sort(descending=True).values[n_chosen - 1]
    reach = slack + slack.max()  # the k-th entry may be any token's
    for name in backends.BACKENDS:
        with backends.force(name):
            found = linear_batch_topk(made.x, made.W, made.b, k)
        values, mask = dense(found, n)
        assert found.values.numel() <= n_chosen, name
        assert bool((found.values > 0).all()), name
        assert bool(mask[(made.exact > kth + reach) & (made.exact > slack)].all()), name
        assert not bool(mask[(made.exact < kth - reach) | (made.exact < -slack)].any()), name
        assert bool(((values.double() - made.exact).abs() <= slack)[mask].all()), name
        if found.values.numel() < n_chosen:  # fewer only where fewer are positive
            assert bool(mask[made.exact > slack].all()), name


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 5), d=st.integers(1, 9), n=st.integers(2, 150), seed=st.integers(0, 10**6), data=st.data())
def test_whole_numbers_give_the_very_same_entries(rows: int, d: int, n: int, seed: int, data: st.DataObject) -> None:
    """Products are exact here, so that ties are real and no entry is within rounding of anything else."""
    generator = torch.Generator().manual_seed(seed)
    x, W, b = (torch.randint(-2, 3, shape, generator=generator).float() for shape in ((rows, d), (n, d), (n,)))
    pre = x @ W.T + b
    k = data.draw(st.integers(1, min(n, 30)))
    cut = torch.randint(-3, 4, (n,), generator=generator).float()
    plain = batch_topk_reference(x, W, b, k)
    for name in backends.BACKENDS:
        with backends.force(name):
            chosen, above = linear_batch_topk(x, W, b, k), linear_above(x, W, b, cut)
        for ours, theirs in zip(chosen[:3], plain[:3], strict=True):
            assert torch.equal(ours, theirs), name
        assert torch.equal(dense(above, n)[0], pre * (pre > cut)), name
        assert torch.equal(dense(above, n)[1], pre > cut), name


@pytest.mark.parametrize("k", [1, 20, 63])
def test_batch_topk_with_fewer_positive_entries_than_chosen(backend: str, k: int) -> None:
    x, W = rand(600, 16), rand(64, 16, seed=1)
    b = torch.full((64,), -8.0)
    pre = x @ W.T + b
    assert (pre.abs() < 0.01).any(), "some are so near to zero that bfloat16 has the wrong sign"
    values, mask = dense(linear_batch_topk(x, W, b, k), 64)
    expected = pre.relu()
    if int((pre > 0).sum()) > 600 * k:
        expected = expected * (expected >= expected.flatten().topk(600 * k).values[-1])
    torch.testing.assert_close(values, expected, rtol=0, atol=2e-5)
    assert torch.equal(mask, expected > 0)


def test_one_token_of_huge_norm_does_not_crowd_out_the_rest(backend: str) -> None:
    x, W, b = rand(40, 16), rand(64, 16, seed=1), rand(64, seed=2)
    x[7] *= 1e20  # its norm overflows: no bound
    values, mask = dense(linear_batch_topk(x, W, b, 4), 64)
    pre = x.double() @ W.double().T + b.double()
    expected = pre >= pre.flatten().topk(160).values[-1]
    assert torch.equal(mask, expected)
    torch.testing.assert_close(values.double(), torch.where(expected, pre, 0.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.5])
def test_several_blocks_sparse_or_dense(backend: str, share: float) -> None:
    x, W, b = rand(1100, 16), rand(96, 16, seed=1), rand(96, seed=2)
    pre = x @ W.T + b
    cut = pre.quantile(1 - share, dim=0)
    near = (pre - cut).abs() < 1e-5
    values, mask = dense(linear_above(x, W, b, cut), 96)
    assert torch.equal(mask | near, (pre > cut) | near)
    torch.testing.assert_close(values[mask], pre[mask], rtol=0, atol=2e-5)


@pytest.mark.parametrize("seed", range(5))
def test_an_entry_that_bfloat16_has_below_its_threshold(hard: Any, backend: str, seed: int) -> None:
    x, W = hard.opposed(seed)
    W = torch.cat([W, torch.zeros(40, 514)])  # enough that are not above to make looking at few worth it
    cut = (x.double() @ W.double().T)[0, :2].float() - 1e-3
    assert float((x.bfloat16() @ W.bfloat16().T)[0, 1]) < float(cut[1]), "the case is real"
    threshold = torch.cat([cut, torch.full((40,), 1e3)])
    assert linear_above(x, W, None, threshold).latents.tolist() == [0, 1]
    assert linear_batch_topk(x, W, None, 1).latents.tolist() == [1]


def test_columns_of_batch_topk(backend: str) -> None:
    x, W, b, ids = rand(600, 16), rand(64, 16, seed=1), rand(64, seed=2), torch.tensor([0, 5, 63])
    found = linear_batch_topk(x, W, b, 4, ids)
    low = found.columns.dtype == torch.bfloat16
    assert low == (backend == "bf16-screen")
    expected = (x @ W.T + b)[:, ids]
    torch.testing.assert_close(found.columns.float(), expected, rtol=1e-2 if low else 1e-5, atol=1e-1 if low else 1e-5)
    assert linear_batch_topk(x, W, b, 4).columns is None


def test_batch_topk_counts_tokens_that_the_screen_cannot_decide(backend: str) -> None:
    x, W = rand(256, 16), rand(512, 16, seed=1)
    x[3], x[9] = 1e4 * x[3], 1e3 * x[9]  # their rounding error is larger than the cut of the batch
    found = linear_batch_topk(x, W, torch.zeros(512), 4)
    assert found.fallback_rows == (2 if backend == "bf16-screen" else 0)


def test_nothing(backend: str) -> None:
    x, W = rand(3, 4), rand(16, 4, seed=1)
    for found in (linear_above(x, W, None, 1e6), linear_batch_topk(x, torch.zeros_like(W), None, 2)):
        assert found.values.numel() == found.latents.numel() == 0
        assert found.offsets.tolist() == [0, 0, 0, 0]
    for found in (linear_above(x[:0], W, None, 0.0), linear_batch_topk(x[:0], W, None, 2)):
        assert found.offsets.tolist() == [0]


def test_float64_is_never_screened() -> None:
    x, W = rand(9, 4).double(), rand(16, 4, seed=1).double()
    with backends.force("bf16-screen"):
        above, chosen = linear_above(x, W, None, 0.3), linear_batch_topk(x, W, None, 2)
    pre = x @ W.T
    torch.testing.assert_close(dense(above, 16)[0], pre * (pre > 0.3), rtol=1e-12, atol=1e-12)
    assert torch.equal(chosen.values, batch_topk(pre.relu(), 2)[0])
