"""A subclass says which latents; loss, AuxK and both gradients follow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from saebench.api import ActivationBatch, SparseCodes, StepInfo
from saebench.nn.kernels.dense_topk import linear_columns, topk
from saebench.nn.topk_sae import AuxKSAE, Chosen
from saebench.testing import example_activations
from saebench.testing.gradients import check_gradients

X = example_activations(300, 16)


class Odd(AuxKSAE):
    """The three largest among latents of odd index."""

    def choose(self, x: Tensor, columns: Tensor | None) -> Chosen:
        pre = x @ self.W_enc.detach().T + self.b_enc.detach()
        values, latents = topk(pre[:, 1::2], 3)
        codes = SparseCodes.from_topk(values.relu(), 2 * latents + 1, self.d_sae)
        return Chosen(codes, linear_columns(x, self.W_enc.detach(), self.b_enc.detach(), columns), 7)


def odd(**changes: Any) -> Odd:
    settings = {"k_aux": 5, "aux_coefficient": 0.5, "dead_window": 0.5, **changes}
    sae = Odd(16, 32, torch.Generator().manual_seed(0), **settings)
    sae.init_from_data(X, torch.Generator().manual_seed(1))
    return sae


def test_gradients_by_hand_are_those_of_the_loss() -> None:
    check_gradients(odd, X)


def test_even_latents_never_fire_and_only_aux_k_moves_them() -> None:
    batch, step = ActivationBatch(X[:64], X[:64]), StepInfo(5, 0.5, 100, 200)
    sae = odd()
    sae.dead.silent[::2] = 150
    terms = sae.loss_and_grad(batch, step)
    assert terms.codes is not None
    assert bool((terms.codes.latents % 2 == 1).all())
    assert float(terms.penalties["aux"]) > 0
    assert sae.W_dec.grad[::2].any()
    assert terms.facts == {"fallback_rows": 7 / 64}
    off = odd(aux_coefficient=0.0)
    off.dead.silent[::2] = 150
    assert off.loss_and_grad(batch, step).penalties == {}
    assert not off.W_dec.grad[::2].any()


@pytest.mark.cpu("computes nothing")
def test_a_subclass_must_choose() -> None:
    sae = AuxKSAE(16, 32, torch.Generator().manual_seed(0), k_aux=None, aux_coefficient=0.0, dead_window=0.5)
    assert sae.k_aux == 8
    with pytest.raises(NotImplementedError):
        sae.choose(X, None)


def test_saes_of_a_thread_share_memory_for_columns() -> None:
    # a pass trains many cells side by side, and a step of one of them uses its columns up
    first, second = (odd() for _ in range(2))
    assert first.workspace is second.workspace
