"""The gradient of one step's loss, by the module's own hand or by autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch
from saebench.api.errors import PluginError
from saebench.api.sae import LossTerms, StepInfo

TokenWeights = Callable[[Tensor], Tensor]
"""Detached losses `[B]` to weights `[B]` of sum 1."""


def loss_and_grad(
    module: Any, batch: ActivationBatch, step: StepInfo, token_weights: TokenWeights | None = None
) -> LossTerms:
    """Sets `.grad` of every parameter to the gradient of the reduced loss; returns its terms, detached.

    The reduced loss is the mean of `reconstruction` (with `token_weights`: the weighted sum) plus all penalties. A
    module with a `loss_and_grad` of its own fills its gradients itself; for all others autograd does.
    """
    own = getattr(module, "loss_and_grad", None)
    if own is not None:
        terms: LossTerms = own(batch, step, token_weights)
        return terms
    return autograd_loss_and_grad(module, batch, step, token_weights)


def autograd_loss_and_grad(
    module: Any, batch: ActivationBatch, step: StepInfo, token_weights: TokenWeights | None = None
) -> LossTerms:
    """The same from `training_loss`: what every hand-written gradient is held against."""
    for parameter in module.parameters():
        parameter.grad = None
    with torch.enable_grad():
        terms: Any = module.training_loss(batch, step)
        if not isinstance(terms, LossTerms):
            raise PluginError(
                f"{type(module).__name__}.training_loss must return saebench.api.LossTerms, got {type(terms).__name__}"
            )
        reduced_loss(terms, token_weights).backward()  # type: ignore[no-untyped-call]
    return detached(terms)


def reduced_loss(terms: LossTerms, token_weights: TokenWeights | None = None) -> Tensor:
    """Mean, or weighted sum, of the reconstruction losses, plus all penalties."""
    losses = terms.reconstruction
    loss = losses.mean() if token_weights is None else (token_weights(losses.detach()) * losses).sum()
    return sum(terms.penalties.values(), start=loss)


def detached(terms: LossTerms) -> LossTerms:
    """The same terms without gradient."""
    return replace(
        terms,
        reconstruction=terms.reconstruction.detach(),
        penalties={name: value.detach() for name, value in terms.penalties.items()},
        codes=terms.codes.detach() if terms.codes is not None else None,
        x_hat=terms.x_hat.detach() if terms.x_hat is not None else None,
    )
