from __future__ import annotations

import pytest
import torch
from torch import nn

from saebench.api import ActivationBatch, PluginError, StepInfo
from saebench.train.step import Trainer


def made(kit, module=None):
    module = module or kit.Tiny
    sae = module(kit.TinyConfig(), kit.site, torch.Generator().manual_seed(0))
    return sae, Trainer(sae, kit.settings, torch.Generator().manual_seed(1), "cell")


def batch(n=64, seed=0):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))
    return ActivationBatch(x, x)


def test_a_step_is_gradient_observation_optimiser_and_after_step(kit):
    order = []

    class Noting(kit.Tiny):
        def training_loss(self, batch, step):
            order.append("gradient")
            return super().training_loss(batch, step)

        def after_step(self, context):
            order.append("after_step")
            assert context.terms.facts == {"step": 3.0}
            self.W_dec[0] = 5.0

    sae, trainer = made(kit, Noting)
    start = sae.W_enc.detach().clone()

    def observe(batch, terms, loss):
        order.append("observed")
        assert torch.equal(sae.W_enc, start)  # the weights have not changed yet
        assert loss == float(terms.reconstruction.mean())
        assert not terms.reconstruction.requires_grad

    trainer.step(batch(), StepInfo(3, 0.3, 192, 640), observe)
    assert order == ["gradient", "observed", "after_step"]
    assert not torch.equal(sae.W_enc, start)
    assert float(sae.W_dec[0].detach().norm()) == pytest.approx(1.0)  # what after_step writes obeys the constraints
    assert trainer.steps == 1


def test_the_learning_rate_is_that_of_the_tokens_of_the_step(kit):
    """The same as the optimiser alone, told by hand of the progress before and after."""
    (one, trainer), (two, by_hand) = made(kit), made(kit)
    for index in range(10):
        info = StepInfo(index, index / 10, 64 * index, 640)
        trainer.step(batch(seed=index), info)
        two.zero_grad()
        two.training_loss(batch(seed=index), info).reconstruction.mean().backward()
        by_hand.optimiser.step(index / 10, (index + 1) / 10)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name)), name


def test_a_step_whose_observer_raises_is_not_taken(kit):
    sae, trainer = made(kit)
    start = [parameter.detach().clone() for parameter in sae.parameters()]

    def refuse(batch, terms, loss):
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        trainer.step(batch(), StepInfo(0, 0.0, 0, 640), refuse)
    assert all(torch.equal(before, after) for before, after in zip(start, sae.parameters(), strict=True))
    assert trainer.steps == 0


def test_token_weights_tell_their_sample_size(kit):
    class Weighted(kit.Tiny):
        def token_weights(self, losses, step):
            return nn.functional.one_hot(losses.argmax(), len(losses)).to(losses)

    _, trainer = made(kit, Weighted)
    seen = []
    terms = trainer.step(batch(), StepInfo(0, 0.0, 0, 640), lambda batch, terms, loss: seen.append(loss))
    assert terms.facts["effective_sample_size"] == pytest.approx(1.0)
    assert seen == [float(terms.reconstruction.max())]


def test_what_breaks_the_contract_is_named(kit):
    class Scalar(kit.Tiny):
        def training_loss(self, batch, step):
            terms = super().training_loss(batch, step)
            return kit.replace(terms, reconstruction=terms.reconstruction.mean())

    _, trainer = made(kit, Scalar)
    with pytest.raises(PluginError, match=r"cell: LossTerms.reconstruction must be \[64\]"):
        trainer.step(batch(), StepInfo(0, 0.0, 0, 640))


@pytest.mark.parametrize("flops", [-(10**9), float("nan"), 2.0, True, None])
def test_work_of_a_step_is_a_count(kit, flops):
    class Counts(kit.Tiny):
        def training_loss(self, batch, step):
            return kit.replace(super().training_loss(batch, step), flops=flops)

    _, trainer = made(kit, Counts)
    with pytest.raises(PluginError, match=r"cell: LossTerms\.flops must be an int from 0"):
        trainer.step(batch(), StepInfo(0, 0.0, 0, 640))
