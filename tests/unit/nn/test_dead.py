"""Dead latents: counting and AuxK."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from saebench.api import SparseCodes
from saebench.nn import DeadLatents, LinearSAE, add_aux_k_gradients, aux_k_loss, default_k_aux, draw_by_loss
from saebench.nn.cost import padded_sizes
from saebench.nn.dead import keep_largest_, padded, zero_where_zero_


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def codes(dense: list[list[float]]) -> SparseCodes:
    return SparseCodes.from_topk(torch.tensor(dense), torch.arange(len(dense[0])).expand(len(dense), -1), len(dense[0]))


def test_dead_after_a_fraction_of_the_allotment() -> None:
    tracker = DeadLatents(3, window=0.5)
    tracker.update(codes([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
    assert tracker.dead(6).tolist() == []
    tracker.update(codes([[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]]))
    assert tracker.dead(6).tolist() == [1]
    assert tracker.dead(4).tolist() == [1]
    tracker.update(codes([[0.0, 0.5, 0.0]]))
    assert tracker.silent.tolist() == [1, 0, 1]


def test_tracker_is_no_part_of_the_checkpoint() -> None:
    assert DeadLatents(3, 0.1).state_dict() == {}


@pytest.mark.parametrize(("d_in", "k"), [(1, 1), (2, 1), (64, 32), (768, 512), (256, 128), (100, 64)])
def test_default_k_aux(d_in: int, k: int) -> None:
    assert default_k_aux(d_in) == k


def dense_aux(
    x: Tensor, residual: Tensor, dead: list[int], W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, k: int
) -> Tensor:
    """The formula as it stands in the paper, on dense matrices of all latents."""
    pre = x @ W_enc.T + b_enc
    alive = torch.ones(W_enc.shape[0], dtype=torch.bool)
    alive[dead] = False
    pre = pre.masked_fill(alive, -torch.inf)
    mask = torch.zeros_like(pre).scatter(1, pre.topk(min(k, len(dead)), dim=1).indices, 1.0).bool()
    f = torch.where(mask, pre, torch.zeros_like(pre)).relu()
    e = residual.detach()
    return (f @ W_dec - e).pow(2).mean() / (e - e.mean(0)).pow(2).mean()


@pytest.mark.parametrize("k", [1, 2, 10])
def test_aux_k_equals_the_dense_formula_with_gradients(k: int) -> None:
    dead = [1, 4, 7]
    inputs = [rand(8, 5), rand(9, 5, seed=1), rand(9, seed=2), rand(9, 5, seed=3)]
    residual = rand(8, 5, seed=4).requires_grad_()
    one = [t.clone().requires_grad_() for t in inputs]
    two = [t.clone().requires_grad_() for t in inputs]
    ours = aux_k_loss(one[0], residual, torch.tensor(dead), one[1], one[2], one[3], k)
    theirs = dense_aux(two[0], residual, dead, two[1], two[2], two[3], k)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(ours, theirs)
    assert residual.grad is None
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    alive = [i for i in range(9) if i not in dead]
    assert one[3].grad is not None
    assert not one[3].grad[alive].any()


def test_aux_k_is_zero_without_dead_latents_or_variance() -> None:
    x, W, b = rand(4, 5), rand(9, 5), rand(9)
    none, all_ids = torch.zeros(0, dtype=torch.long), torch.arange(9)
    assert float(aux_k_loss(x, rand(4, 5), none, W, b, W, 3)) == 0.0
    assert float(aux_k_loss(x, torch.ones(4, 5, dtype=torch.float64), all_ids, W, b, W, 3)) == 0.0


def test_aux_k_of_a_perfect_explanation_is_zero() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    x = rand(6, 3).abs()
    assert float(aux_k_loss(x, x, torch.arange(3), eye, torch.zeros(3, dtype=torch.float64), eye, 3)) == pytest.approx(
        0.0
    )


def test_draws_follow_the_losses() -> None:
    generator = torch.Generator().manual_seed(0)
    sampled = draw_by_loss(torch.tensor([0.0, 1.0, 3.0]), 4000, generator)
    counts = torch.bincount(sampled, minlength=3)
    assert counts[0] == 0
    assert 0.7 < counts[2] / 4000 < 0.8
    assert set(draw_by_loss(torch.zeros(2), 50, generator).tolist()) == {0, 1}


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 4),
    m=st.integers(1, 40),
    k=st.integers(1, 45),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    shift=st.sampled_from([0.0, -1.0, -9.0, 9.0]),
    seed=st.integers(0, 1000),
)
def test_keep_largest_by_the_obvious_way(
    rows: int, m: int, k: int, dtype: torch.dtype, shift: float, seed: int
) -> None:
    z = rand(rows, m, seed=seed).add(shift).mul(4).round().div(4).to(dtype)  # with ties
    z[0, 0] = -0.0
    rectified = z.relu()
    kth = rectified.sort(dim=1, descending=True).values[:, min(k, m) - 1 : min(k, m)]
    expected = torch.where(rectified >= kth, rectified, 0.0)
    kept = z.clone()
    keep_largest_(kept, k)
    assert torch.equal(kept, expected)
    values = rand(rows, m, seed=seed + 1).to(dtype)
    masked = values.clone()
    zero_where_zero_(masked, kept)
    assert torch.equal(masked, torch.where(kept > 0, values, 0.0))


def test_keep_largest_over_several_blocks() -> None:
    z = rand(1300, 7)
    kept = z.clone()
    keep_largest_(kept, 2)
    assert torch.equal(kept, z.relu() * (z >= z.topk(2, dim=1).values[:, -1:]))


@pytest.mark.parametrize("k", [1, 2, 10])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.02)]
)
def test_gradients_by_hand_are_those_of_the_loss(k: int, dtype: torch.dtype, tolerance: float) -> None:
    """What is there already stays; bfloat16 products are near, relative to the whole gradient."""
    double = torch.float64 if dtype == torch.float64 else torch.float32
    sae = LinearSAE(16, 40, torch.Generator().manual_seed(0)).to(double)
    with torch.no_grad():
        sae.b_enc.copy_(rand(40, seed=2))
    x, residual, dead = rand(300, 16, seed=3).to(double), rand(300, 16, seed=4).to(double), torch.tensor([1, 4, 7, 22])
    sae.zero_grad()
    loss = 0.3 * aux_k_loss(x, residual, dead, sae.W_enc, sae.b_enc, sae.W_dec, k)
    loss.backward()
    expected = {name: parameter.grad for name, parameter in sae.named_parameters() if parameter.grad is not None}
    assert set(expected) == {"W_enc", "b_enc", "W_dec"}
    for name in expected:
        sae.get_parameter(name).grad = torch.ones_like(sae.get_parameter(name))
    before = residual.clone()
    latents = padded(dead)
    pre = functional.linear(x, sae.W_enc[latents], sae.b_enc[latents]).to(dtype)
    made = add_aux_k_gradients(sae, x, pre, residual, latents, len(dead), k, 0.3)
    assert torch.equal(residual, before)
    assert made.dtype == double
    assert float(made) == pytest.approx(loss.item(), rel=tolerance)
    for name, gradient in expected.items():
        added = sae.get_parameter(name).grad - 1
        assert float((added - gradient).norm() / gradient.norm()) < tolerance, name
        alive = torch.ones(40, dtype=torch.bool).scatter(0, dead, False)
        assert not added[alive].any()


def test_dead_latents_are_padded_to_few_sizes() -> None:
    sizes = {len(padded(torch.arange(m))) for m in range(1, 8193)}
    assert len(sizes) <= padded_sizes(8192) < 80
    for m in (1, 15, 16, 17, 100, 129, 1000, 8192):
        latents = padded(torch.arange(m))
        assert torch.equal(latents[:m], torch.arange(m))
        assert (latents[m:] == m - 1).all()
        assert len(latents) <= max(16, m * 9 / 8)
    assert padded(torch.arange(0)).numel() == 0


def test_padding_changes_no_gradient() -> None:
    """A k between the true number of latents and the padded one keeps them all, and pads stay out."""
    x, residual, dead = rand(50, 16, seed=3), rand(50, 16, seed=4), torch.tensor([1, 4, 7, 22])
    found = []
    for latents in (dead, padded(dead)):
        sae = LinearSAE(16, 40, torch.Generator().manual_seed(0)).double()
        sae.requires_grad_(False)
        for parameter in sae.parameters():
            parameter.grad = torch.zeros_like(parameter)
        pre = functional.linear(x, sae.W_enc[latents], sae.b_enc[latents] + 0.5)
        loss = add_aux_k_gradients(sae, x, pre, residual, latents, 4, 8, 0.3)
        found.append((loss, [parameter.grad for parameter in sae.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12)


def test_no_gradient_without_dead_latents_or_variance() -> None:
    sae = LinearSAE(5, 9, torch.Generator().manual_seed(0))
    for residual, dead in ((torch.ones(4, 5), torch.arange(9)), (rand(4, 5).float(), torch.zeros(0, dtype=torch.long))):
        pre = torch.ones(4, len(dead))
        made = add_aux_k_gradients(sae, torch.ones(4, 5), pre, residual, dead, len(dead), 3, 1.0)
        assert float(made) == 0.0
        assert sae.W_dec.grad is None
