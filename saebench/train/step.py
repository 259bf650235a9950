"""Loss terms and token weights, held to their contracts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, LossTerms, PluginError, StepInfo
from saebench.api.errors import contained
from saebench.host.sae_contract import normalise_codes
from saebench.nn import effective_sample_size, loss_and_grad


def check_terms(terms: object, batch: ActivationBatch, label: str, *, d_sae: int | None) -> None:
    """Raises PluginError where `training_loss` returned something else than it promised; with `d_sae`, its codes are checked too."""
    if not isinstance(terms, LossTerms):
        raise PluginError(f"{label}: training_loss must return saebench.api.LossTerms, got {type(terms).__name__}")
    n_tokens = batch.n_tokens
    if terms.reconstruction.shape != (n_tokens,):
        raise PluginError(
            f"{label}: LossTerms.reconstruction must be [{n_tokens}], one loss a token, got {_seen(terms.reconstruction)}"
        )
    for name, penalty in terms.penalties.items():
        if not isinstance(penalty, Tensor) or penalty.ndim:
            raise PluginError(f"{label}: penalty '{name}' must be a scalar tensor, got {_seen(penalty)}")
    if terms.x_hat is not None and terms.x_hat.shape != batch.target.shape:
        raise PluginError(f"{label}: LossTerms.x_hat must be {list(batch.target.shape)}, got {_seen(terms.x_hat)}")
    if d_sae is not None and terms.codes is not None:
        normalise_codes(terms.codes.detach(), d_sae, n_rows=n_tokens, plugin=f"{label}, LossTerms.codes")


class TokenWeights:
    """A module's `token_weights` for one step, checked when it is called; remembers what it gave."""

    def __init__(self, module: Any, step: StepInfo, label: str) -> None:
        self._module, self._step, self._label = module, step, label
        self.given: Tensor | None = None

    def __call__(self, losses: Tensor) -> Tensor:
        """Weights `[B]` of sum 1 for detached losses `[B]`.

        Raises:
            PluginError: Another shape, or weights that do not sum to 1.
        """
        with torch.no_grad():
            weights = self._module.token_weights(losses.detach(), self._step)
        if not isinstance(weights, Tensor) or weights.shape != losses.shape:
            raise PluginError(
                f"{self._label}: token_weights must return {list(losses.shape)} weights, got {_seen(weights)}"
            )
        total = float(weights.double().sum())
        if math.isfinite(total) and abs(total - 1.0) > 1e-3:
            raise PluginError(f"{self._label}: token_weights must sum to 1, got {total:.6g}")
        self.given = weights
        return weights


def step_terms(
    module: Any, batch: ActivationBatch, step: StepInfo, note: Callable[[str, float], None], label: str
) -> tuple[LossTerms, float]:
    """Fills the gradients of one step; gives its detached terms, checked, and the reduced loss.

    Raises:
        PluginError: The module breaks its contract.
    """
    weights = TokenWeights(module, step, label) if hasattr(module, "token_weights") else None
    try:
        terms = loss_and_grad(module, batch, step, weights)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        _explain(module, batch, step, label)
        raise
    check_terms(terms, batch, label, d_sae=module.d_sae if step.index == 0 else None)
    loss = terms.reconstruction.mean()
    if weights is not None:
        if weights.given is None:
            raise PluginError(f"{label}: loss_and_grad did not call the token_weights it was given")
        if "effective_sample_size" not in terms.facts:
            note("effective_sample_size", effective_sample_size(weights.given))
        loss = (weights.given * terms.reconstruction).sum()
    return terms, float(sum(terms.penalties.values(), start=loss))


def _explain(module: Any, batch: ActivationBatch, step: StepInfo, label: str) -> None:
    """Where a gradient failed because the terms broke their contract, says so (PluginError) in place of what torch says."""
    try:
        with contained(), torch.no_grad():
            terms = module.training_loss(batch, step)
    except Exception:
        return  # the first error says what is wrong
    check_terms(terms, batch, label, d_sae=module.d_sae)


def _seen(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
