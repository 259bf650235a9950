"""One training step, for all that train (loop, bench, checks), and the contract of what a module returns in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, AfterStep, LossTerms, PluginError, StepInfo
from saebench.api.errors import contained
from saebench.cells.cell import TrainSettings
from saebench.host.sae_contract import normalise_codes
from saebench.nn import effective_sample_size, loss_and_grad
from saebench.train.optimiser import Optimiser


def check_terms(terms: object, batch: ActivationBatch, label: str, *, d_sae: int | None) -> None:
    """Raises PluginError where `training_loss` did not return what it must; with `d_sae`, codes are checked too."""
    if not isinstance(terms, LossTerms):
        raise PluginError(f"{label}: training_loss must return saebench.api.LossTerms, got {type(terms).__name__}")
    n_tokens = batch.n_tokens
    if terms.reconstruction.shape != (n_tokens,):
        raise PluginError(
            f"{label}: LossTerms.reconstruction must be [{n_tokens}], one loss a token, got "
            f"{_seen(terms.reconstruction)}"
        )
    for name, penalty in terms.penalties.items():
        if not isinstance(penalty, Tensor) or penalty.ndim:
            raise PluginError(f"{label}: penalty '{name}' must be a scalar tensor, got {_seen(penalty)}")
    if not isinstance(terms.flops, int) or isinstance(terms.flops, bool) or terms.flops < 0:
        raise PluginError(
            f"{label}: LossTerms.flops must be an int from 0 (work that the architecture's Cost does not know of), got "
            f"{terms.flops!r}. Leave it out where there is none"
        )
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


Observe = Callable[[ActivationBatch, LossTerms, float], object]
"""`observe(batch, terms, loss)`: called after the gradients, before the weights change. It may raise."""


class Trainer:
    """Takes the training steps of one module: loss and gradients, the optimiser's step, `after_step`.

    Args:
        module: The SAE, on its device, in training mode.
        settings: Learning rate, schedule, clipping.
        generator: What `after_step` draws from.
        label: Named in errors.
        counted: `counted("after_step")` is entered while that hook is called.

    Attributes:
        steps: Steps taken.
    """

    def __init__(
        self,
        module: Any,
        settings: TrainSettings,
        generator: torch.Generator,
        label: str,
        counted: Callable[[str], AbstractContextManager[None]] = lambda hook: nullcontext(),
    ) -> None:
        self._counted = counted
        self.module, self.generator, self.label, self.steps = module, generator, label, 0
        self.optimiser = Optimiser(module, settings, label)

    def step(
        self,
        batch: ActivationBatch,
        info: StepInfo,
        observe: Observe = lambda batch, terms, loss: None,
        work: AbstractContextManager[object] | None = None,
    ) -> LossTerms:
        """One step.

        Args:
            batch: In the module's units.
            info: How far training is; the learning rate is that of the tokens before and after this batch.
            observe: Sees the detached terms and the reduced loss.
            work: Entered while loss and gradients are made; the weights' values are compared then, else their versions.

        Returns:
            The terms, detached.

        Raises:
            PluginError: The module breaks its contract.
            Diverged: The gradient is not finite.
        """
        before = self._mark(work is not None)
        with work or nullcontext():
            terms, loss = self._gradients(batch, info)
        observe(batch, terms, loss)
        if self._mark(work is not None) != before:
            raise PluginError(
                f"{self.label}: the weights changed while loss and codes of a batch were made. Only the optimiser, and "
                "after_step, may change them."
            )
        self.optimiser.step(info.progress, (info.tokens_seen + batch.n_tokens) / info.tokens_allotted)
        self.steps += 1
        if hasattr(self.module, "after_step"):
            with torch.no_grad(), self._counted("after_step"):
                self.module.after_step(AfterStep(batch, terms, info, self.generator, self.optimiser.reset_moments))
            self.optimiser.constraints.enforce_again()
        return terms

    @torch.no_grad()
    def _mark(self, values: bool) -> list[int]:
        """What changes where a parameter is written to: its version; with `values`, a sum of its bits as well."""
        parameters = list(self.module.parameters())
        marks = [parameter._version for parameter in parameters]
        if values:
            sums = [
                parameter.detach().contiguous().view(torch.uint8).sum(dtype=torch.int64) for parameter in parameters
            ]
            marks += torch.stack(sums).tolist() if sums else []
        return marks

    def _gradients(self, batch: ActivationBatch, info: StepInfo) -> tuple[LossTerms, float]:
        """Fills the gradients; gives the detached terms, checked, and the reduced loss."""
        module, label = self.module, self.label
        weights = TokenWeights(module, info, label) if hasattr(module, "token_weights") else None
        try:
            terms = loss_and_grad(module, batch, info, weights)
        except (RuntimeError, TypeError, ValueError, AttributeError):
            _explain(module, batch, info, label)
            raise
        check_terms(terms, batch, label, d_sae=module.d_sae if info.index == 0 else None)
        loss = terms.reconstruction.mean()
        if weights is not None:
            if weights.given is None:
                raise PluginError(f"{label}: loss_and_grad did not call the token_weights it was given")
            if "effective_sample_size" not in terms.facts:
                size = effective_sample_size(weights.given)
                terms = replace(terms, facts={**terms.facts, "effective_sample_size": size})
            loss = (weights.given * terms.reconstruction).sum()
        return terms, float(sum(terms.penalties.values(), start=loss))


def _explain(module: Any, batch: ActivationBatch, step: StepInfo, label: str) -> None:
    """Raises PluginError where a gradient failed because the terms broke their contract."""
    try:
        with contained(), torch.no_grad():
            terms = module.training_loss(batch, step)
    except Exception:  # noqa: BLE001 - a plugin's own code
        return  # the first error says what is wrong
    check_terms(terms, batch, label, d_sae=module.d_sae)


def _seen(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
