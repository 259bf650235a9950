"""Loss terms: held to their contract, then reduced to one number."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, LossTerms, PluginError, StepInfo
from saebench.host.build import normalise_codes
from saebench.nn import effective_sample_size


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


def reduce_terms(
    module: Any, terms: LossTerms, step: StepInfo, note: Callable[[str, float], None], label: str
) -> Tensor:
    """Mean (or, with `token_weights`, the weighted sum) of the reconstruction losses, plus all penalties.

    Raises:
        PluginError: `token_weights` gives another shape, or weights that do not sum to 1.
    """
    losses = terms.reconstruction
    if hasattr(module, "token_weights"):
        with torch.no_grad():
            weights = module.token_weights(losses.detach(), step)
        if not isinstance(weights, Tensor) or weights.shape != losses.shape:
            raise PluginError(f"{label}: token_weights must return {list(losses.shape)} weights, got {_seen(weights)}")
        total = float(weights.double().sum())
        if math.isfinite(total) and abs(total - 1.0) > 1e-3:
            raise PluginError(f"{label}: token_weights must sum to 1, got {total:.6g}")
        if "effective_sample_size" not in terms.facts:
            note("effective_sample_size", effective_sample_size(weights))
        loss = (weights * losses).sum()
    else:
        loss = losses.mean()
    return sum(terms.penalties.values(), start=loss)


def _seen(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
