"""Rules of training: the loss, its gradients, what a step reports, and that it learns."""

from __future__ import annotations

from typing import Any

from saebench.api import ActivationBatch, LossTerms
from saebench.testing.architecture.building import (
    draws_from_the_given_generator,
    everything_is_float32,
    is_an_sae,
    shapes,
)
from saebench.testing.architecture.case import FIRST, Case
from saebench.testing.check import Rule, Skip
from saebench.testing.gradients import check_gradients

LEARN_STEPS, GRADIENT_STEPS = 60, 12


def _trainable(case: Case) -> Any:
    sae = case.build()
    if not any(parameter.requires_grad for parameter in sae.parameters()):
        raise Skip("nothing has a gradient")
    return sae


def loss_is_per_token(case: Case) -> None:
    """`LossTerms` with one loss a token and scalar penalties."""
    import torch

    from saebench.train.step import check_terms

    sae = _trainable(case)
    terms = sae.training_loss(case.batch(), FIRST)
    check_terms(terms, case.batch(), case.spec.name, d_sae=sae.d_sae)
    assert isinstance(terms.flops, int) and terms.flops >= 0, (
        f"LossTerms.flops is {terms.flops!r}: work beyond the cost is an integer from 0"
    )
    for name, value in {"reconstruction": terms.reconstruction, **terms.penalties}.items():
        assert torch.isfinite(value).all(), f"the loss is not finite: {name}"
        assert value.dtype == torch.float32, f"{name} of the loss is {value.dtype}, needed torch.float32"


def x_hat_is_decoded(case: Case) -> None:
    """`LossTerms.x_hat` is what a module makes, not what it was given."""
    import torch

    terms = _trainable(case).training_loss(case.batch(), FIRST)
    if terms.x_hat is None:
        raise Skip("the loss brings no x_hat")
    assert not torch.equal(terms.x_hat, case.batch().target), "LossTerms.x_hat is the target itself"


def every_parameter_has_a_gradient(case: Case) -> None:
    """Within some steps."""
    sae: Any = None
    moved: set[str] = set()

    def observe(batch: ActivationBatch, terms: LossTerms, loss: float) -> None:
        moved.update(name for name, p in sae.named_parameters() if p.grad is not None and bool((p.grad != 0).any()))

    sae = _trainable(case)
    case.train(sae, GRADIENT_STEPS, observe)
    for name, parameter in sae.named_parameters():
        assert name in moved or not parameter.requires_grad, (
            f"{name} never receives a gradient in {GRADIENT_STEPS} steps"
        )


def gradients_by_hand(case: Case) -> None:
    """Those of the loss, on every path on which it may train."""
    if not hasattr(case.build(), "loss_and_grad"):
        raise Skip("no loss_and_grad: autograd does it")
    check_gradients(case.build, case.x)


def learns(case: Case) -> None:
    """Some steps lower the error."""
    sae = _trainable(case)
    before = case.error(sae)
    after = case.error(case.trained(steps=LEARN_STEPS))
    assert after < before or after < 0.05 * case.d_in, (
        f"{LEARN_STEPS} steps of training did not lower the error: {before:.4g} before, {after:.4g} after"
    )


RULES: tuple[Rule[Case], ...] = (
    Rule(
        "the loss is per token and finite",
        loss_is_per_token,
        "training_loss returns LossTerms(reconstruction [B], {name: scalar}); the harness takes the mean.",
        (is_an_sae, shapes, everything_is_float32),
    ),
    Rule(
        "the x_hat of the loss is the reconstruction",
        x_hat_is_decoded,
        "Give the x_hat that the loss was computed from, or none.",
        (is_an_sae, shapes, loss_is_per_token),
    ),
    Rule(
        "every parameter receives a gradient",
        every_parameter_has_a_gradient,
        "Is there a detach() too many, or an argmax in its path? What is not trained is a buffer, or has "
        "requires_grad=False.",
        (is_an_sae, shapes, loss_is_per_token),
    ),
    Rule(
        "gradients by hand are those of the loss",
        gradients_by_hand,
        "Compare term by term in float64 against autograd through training_loss, then on each back end "
        "(SAEBENCH_BACKEND=plain, bf16-screen).",
        (is_an_sae, shapes, loss_is_per_token),
    ),
    Rule(
        "training lowers the error",
        learns,
        "Does the loss compare with batch.target, and does decode use the weights that are trained?",
        (is_an_sae, shapes, loss_is_per_token, draws_from_the_given_generator),
    ),
)
