"""Dead latents: counting and AuxK."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saebench.api import SparseCodes
from saebench.nn import DeadLatents, aux_k_loss, default_k_aux, draw_by_loss


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
    drawn = draw_by_loss(torch.tensor([0.0, 1.0, 3.0]), 4000, generator)
    counts = torch.bincount(drawn, minlength=3)
    assert counts[0] == 0
    assert 0.7 < counts[2] / 4000 < 0.8
    assert set(draw_by_loss(torch.zeros(2), 50, generator).tolist()) == {0, 1}
