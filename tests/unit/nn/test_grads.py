"""The one door to a step's gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saebench.api import ActivationBatch, LossTerms, PluginError, SparseCodes, StepInfo
from saebench.nn import autograd_loss_and_grad, detached, loss_and_grad, reduced_loss

STEP = StepInfo(0, 0.0, 0, 100)
X = torch.tensor([[1.0, 2.0], [3.0, -1.0]])


class Shift(nn.Module):
    """`losses = (x . w)^2`, penalty `sum(w)`; `unused` has no part in it."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.unused = nn.Parameter(torch.tensor([1.0, 0.5])), nn.Parameter(torch.ones(1))

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> Any:
        made = batch.x @ self.w
        codes = SparseCodes(made, torch.zeros(2, dtype=torch.long), torch.arange(3), 1)
        return LossTerms(made.square(), {"sum": self.w.sum()}, codes, made.unsqueeze(1), {"a": 1.0})


def test_mean_by_hand() -> None:
    module = Shift()
    terms = loss_and_grad(module, ActivationBatch(X, X), STEP)
    assert terms.reconstruction.tolist() == [4.0, 6.25]  # x . w = 2 and 2.5
    assert float(reduced_loss(terms)) == 5.125 + 1.5
    # mean of 2 (x . w) x, and one from the penalty
    assert module.w.grad.tolist() == [(4 * 1 + 5 * 3) / 2 + 1, (4 * 2 + 5 * -1) / 2 + 1]
    assert module.unused.grad is None


def test_weights_by_hand_and_set_not_added() -> None:
    module, seen = Shift(), []

    def weights(losses: Tensor) -> Tensor:
        seen.append(losses)
        return torch.tensor([0.25, 0.75])

    for _ in range(2):
        terms = loss_and_grad(module, ActivationBatch(X, X), STEP, weights)
    assert not seen[0].requires_grad
    assert module.w.grad.tolist() == [0.25 * 4 * 1 + 0.75 * 5 * 3 + 1, 0.25 * 4 * 2 + 0.75 * 5 * -1 + 1]
    assert float(reduced_loss(terms, weights)) == 0.25 * 4 + 0.75 * 6.25 + 1.5


def test_terms_come_back_detached_and_otherwise_as_they_were() -> None:
    module = Shift()
    with torch.no_grad():  # the caller may be anywhere
        terms = autograd_loss_and_grad(module, ActivationBatch(X, X), STEP)
    assert terms.codes is not None
    assert terms.x_hat is not None
    for tensor in (terms.reconstruction, terms.penalties["sum"], terms.codes.values, terms.x_hat):
        assert not tensor.requires_grad
    assert terms.facts == {"a": 1.0}
    bare = detached(dataclasses.replace(terms, codes=None, x_hat=None))
    assert bare.codes is None
    assert bare.x_hat is None


def test_a_modules_own_hand_comes_first() -> None:
    class Own(Shift):
        def loss_and_grad(self, batch: ActivationBatch, step: StepInfo, token_weights: Any = None) -> LossTerms:
            self.w.grad = torch.full((2,), 7.0)
            return LossTerms(torch.zeros(2), facts={"weighted": float(token_weights is not None)})

    module = Own()
    assert loss_and_grad(module, ActivationBatch(X, X), STEP, torch.zeros_like).facts == {"weighted": 1.0}
    assert module.w.grad.tolist() == [7.0, 7.0]
    autograd_loss_and_grad(module, ActivationBatch(X, X), STEP)
    assert module.w.grad.tolist() != [7.0, 7.0]


@pytest.mark.real("its tensors are of another class")
def test_something_else_than_terms_is_named() -> None:
    class Wrong(Shift):
        def training_loss(self, batch: ActivationBatch, step: StepInfo) -> Any:
            return self.w.sum()

    with pytest.raises(PluginError, match=r"Wrong.training_loss must return saebench.api.LossTerms, got Tensor"):
        loss_and_grad(Wrong(), ActivationBatch(X, X), STEP)
