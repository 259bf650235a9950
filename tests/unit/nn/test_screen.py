"""The screen's bound against float64, and what is found by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from saebench.nn.kernels.screen import RHO, SAFE, Rounded, at_least, group_size, kth_lower_bound, nonzero_flat, scratch

pytestmark = pytest.mark.cpu("the bfloat16 screen is for the processor")


def screened(x: Tensor, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor]:
    """z and E."""
    rounded = Rounded.of(W, b)
    low, error = rounded.error(x)
    return torch.mm(low, rounded.W.T), error


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_bound_holds_whatever_the_numbers(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    z, error = screened(made.x, made.W, made.b)
    known = error.isfinite() & z.isfinite().all(1)  # where it is not, the token is decided elsewhere
    off = (z.double() - made.exact).abs()[known]
    allowed = error.double().unsqueeze(1) + RHO * z.double().abs()
    assert bool((off <= allowed[known]).all()), float((off - allowed[known]).max())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_may_be_chosen_is_among_the_candidates(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    n = made.W.shape[0]
    k = data.draw(st.integers(1, n - 1))
    z, error = screened(made.x, made.W, made.b)
    found = at_least(z, (kth_lower_bound(z, k) * (1 - RHO) - 2 * error) / ((1 + RHO) * SAFE), n)
    candidate = torch.zeros(z.shape, dtype=torch.bool)
    candidate.view(-1)[found.flat] = True
    candidate[found.overflow] = True
    best = made.exact.sort(dim=1, descending=True, stable=True)
    tied = made.exact >= best.values[:, k - 1 : k]
    assert bool(candidate[tied].all())


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_another_bias_has_its_bound_too(hard: Any, data: st.DataObject) -> None:
    made = data.draw(hard.cases())
    rounded = Rounded.of(made.W, made.b).with_bias(None)
    low, error = rounded.error(made.x)
    z = torch.mm(low, rounded.W.T).double()
    known = error.isfinite() & z.isfinite().all(1)
    off = (z - hard.exact(made.x, made.W, None)).abs()
    assert bool((off <= error.double().unsqueeze(1) + RHO * z.abs())[known].all())


def test_ordinary_numbers_have_a_narrow_bound() -> None:
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(200, 256, generator=generator), torch.randn(500, 256, generator=generator)
    _, error = screened(x, W, None)
    assert bool((error < 0.0045 * x.norm(dim=1) * W.norm(dim=1).amax()).all())


def test_the_bound_is_reached_by_a_token_whose_rounding_points_at_a_latent() -> None:
    x = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
    lost = x - x.bfloat16().float()
    W = (lost / lost.norm()).bfloat16().float()  # rounds to itself
    W = torch.cat([W, -W])
    z, error = screened(x, W, None)
    off = (z.double() - x.double() @ W.double().T).abs()
    assert float(off.max() / error) > 0.8


def test_each_part_of_the_bound_is_needed_where_the_others_vanish() -> None:
    """Numbers that bfloat16 holds have no residual: what remains is the rounding of sums and of the bias columns."""
    generator = torch.Generator().manual_seed(1)
    terms = torch.rand(64, 2048, generator=generator).bfloat16().float()
    x = torch.ones(1, 4096)
    W = torch.cat(
        [terms, -terms[:, torch.randperm(2048, generator=generator)]], 1
    )  # sums to nothing, but not in float32
    z, error = screened(x, W, None)
    assert float(z.abs().max()) > 1e-6
    assert bool((z.abs() <= error + RHO * z.abs()).all())
    b = torch.rand(500, generator=generator)
    high = b.bfloat16().float()
    low = (b - high).bfloat16().float()
    x, W = torch.ones(1, 2), -torch.stack([high, low], 1)
    z, error = screened(x, W, b)
    off = (z.double() - (b.double() - high.double() - low.double())).abs()
    assert bool((off <= error + RHO * z.abs()).all())
    assert float(off.max()) > 0.9 * float((b - high - low).abs().max()) > 6 * 2**-23 * 2.42 * float(b.max())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_has_no_bound(bad: float) -> None:
    x, W, b = torch.ones(3, 5), torch.ones(40, 5), torch.ones(40)
    x[1, 2] = bad
    z, error = screened(x, W, b)
    assert error.isfinite().tolist() == [True, False, True]
    found = at_least(z, kth_lower_bound(z, 2) - 2 * error, 40)
    assert found.overflow.tolist() == [1]
    assert found.offsets.tolist() == [0, 40, 40, 80]
    for broken in (W, b):
        before = broken.view(-1)[3].clone()
        broken.view(-1)[3] = bad
        assert not screened(x, W, b)[1].isfinite().any()
        broken.view(-1)[3] = before


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 4),
    n=st.one_of(st.integers(1, 80), st.sampled_from([64, 320, 512])),
    half=st.booleans(),
    shift=st.sampled_from([0.0, -3.0, 3.0]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_at_least_k_entries_reach_the_lower_bound(
    rows: int, n: int, half: bool, shift: float, seed: int, data: st.DataObject
) -> None:
    z = (torch.randn(rows, n, generator=torch.Generator().manual_seed(seed)) + shift).mul(8).round() / 8
    z = z.to(torch.bfloat16 if half else torch.float32)
    k = data.draw(st.integers(1, n))
    bound = kth_lower_bound(z, k)
    kth = z.float().sort(dim=1, descending=True).values[:, k - 1]
    usable = bound > 0
    assert bool((kth >= bound)[usable].all())
    if group_size(n, k) == 1:
        assert torch.equal(bound > 0, kth > 0)
        assert torch.equal(bound[usable], kth[usable])
    size = group_size(n, k)
    assert n % size == 0
    assert n // size >= k


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 5),
    n=st.integers(1, 33),
    half=st.booleans(),
    most=st.integers(0, 33),
    seed=st.integers(0, 1000),
)
def test_entries_at_least_a_cut_by_the_obvious_way(rows: int, n: int, half: bool, most: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, n, generator=generator).to(torch.bfloat16 if half else torch.float32)
    z[0, 0] = -0.0
    cut = torch.randn(rows, generator=generator)
    cut[torch.rand(rows, generator=generator) < 0.2] = torch.nan
    found = at_least(z, cut, most)
    rounded = (cut.view(torch.int32) & -65536).view(torch.float32) if half else cut
    expected = z.float() >= rounded.unsqueeze(1)
    empty = ~(cut > 0) | (expected.sum(1) > most)
    expected[empty] = False
    row, latent = expected.nonzero(as_tuple=True)
    assert torch.equal(found.overflow, empty.nonzero().squeeze(1))
    assert torch.equal(found.rows, row)
    assert torch.equal(found.latents, latent)
    assert torch.equal(found.flat, row * n + latent)
    assert found.offsets.tolist() == [0, *expected.sum(1).cumsum(0).tolist()]


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (4, 8), (5, 16), (2, 0)])
def test_places_of_true_entries(shape: tuple[int, int]) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    assert torch.equal(nonzero_flat(mask), mask.view(-1).nonzero().squeeze(1))


def test_scratch_is_kept_and_may_be_used_in_and_out_of_inference_mode() -> None:
    with torch.inference_mode():
        first = scratch("test", (4, 3), torch.float32)
        first.fill_(2.0)
    again = scratch("test", (2, 3), torch.float32)
    assert again.data_ptr() == first.data_ptr()
    again.fill_(1.0)
    assert scratch("test", (2, 3), torch.int16).dtype == torch.int16
