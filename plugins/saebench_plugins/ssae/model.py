"""SSAE: the base's own loss, reduced over tokens with tilted weights instead of the mean."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from saebench.api import (
    ActivationBatch,
    AfterStep,
    Constraint,
    LossTerms,
    Site,
    SparseAutoencoder,
    SparseCodes,
    StepInfo,
)
from saebench.nn import (
    decoder_directions,
    effective_sample_size,
    encoder_directions,
    loss_and_grad,
    stored_bytes,
    term_weights,
)
from saebench_plugins.ssae.plugin import SSAEConfig


class SSAE(nn.Module):
    """Tilted training around `base`, which does everything else. There is no `init_from_data`: weights come from the
    parent."""

    def __init__(self, config: SSAEConfig, base: nn.Module) -> None:
        super().__init__()
        self.config, self.base = config, base

    @property
    def _sae(self) -> SparseAutoencoder:
        return cast(SparseAutoencoder, self.base)

    @property
    def d_in(self) -> int:
        """The base's."""
        return self._sae.d_in

    @property
    def d_sae(self) -> int:
        """The base's."""
        return self._sae.d_sae

    def encode(self, x: Tensor) -> SparseCodes | Tensor:
        """The base's codes."""
        return self._sae.encode(x)

    def training_codes(self, x: Tensor) -> SparseCodes | Tensor:
        """The base's."""
        form: Callable[[Tensor], SparseCodes | Tensor] = getattr(self.base, "training_codes", self._sae.encode)
        return form(x)

    def decode(self, codes: SparseCodes) -> Tensor:
        """The base's reconstruction."""
        return self._sae.decode(codes)

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """The base's terms, and how many tokens decide this step."""
        return self._with_sample_size(self._sae.training_loss(batch, step))

    def loss_and_grad(
        self, batch: ActivationBatch, step: StepInfo, token_weights: Callable[[Tensor], Tensor] | None = None
    ) -> LossTerms:
        """The base's terms and gradients, however it makes them."""
        return self._with_sample_size(loss_and_grad(self.base, batch, step, token_weights))

    def _with_sample_size(self, terms: LossTerms) -> LossTerms:
        weights = term_weights(terms.reconstruction.detach(), self.config.tilt)
        return replace(terms, facts={**terms.facts, "effective_sample_size": effective_sample_size(weights)})

    def token_weights(self, losses: Tensor, step: StepInfo) -> Tensor:
        """`softmax(tilt * losses / mean(losses))`."""
        return term_weights(losses, self.config.tilt)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The base's groups."""
        own = getattr(self.base, "param_groups", None)
        groups: list[dict[str, Any]] = (
            own(lr) if own is not None else [{"params": list(self.base.parameters()), "lr": lr}]
        )
        return groups

    def constraints(self) -> dict[str, Constraint]:
        """The base's constraints, under our names."""
        own = getattr(self.base, "constraints", None)
        return {f"base.{name}": constraint for name, constraint in own().items()} if own is not None else {}

    def after_step(self, after: AfterStep) -> None:
        """What the base does."""
        own = getattr(self.base, "after_step", None)
        if own is not None:
            own(after)

    def finalize(self, batches: Iterable[Tensor]) -> None:
        """What the base does."""
        own = getattr(self.base, "finalize", None)
        if own is not None:
            own(batches)

    def decoder_directions(self) -> Tensor:
        """The base's."""
        return decoder_directions(self.base)

    def encoder_directions(self) -> Tensor:
        """The base's."""
        return encoder_directions(self.base)

    def support_digest(self) -> str | None:
        """The base's, if it has a frozen support."""
        own = getattr(self.base, "support_digest", None)
        found: str | None = own() if own is not None else None
        return found

    def stored_bytes(self) -> int:
        """The base's."""
        own = getattr(self.base, "stored_bytes", None)
        return int(own()) if own is not None else stored_bytes(self.base)

    def learned_values(self) -> int:
        """The base's."""
        own = getattr(self.base, "learned_values", None)
        return int(own()) if own is not None else sum(parameter.numel() for parameter in self.base.parameters())

    def facts(self) -> dict[str, Any]:
        """The tilt and what it is relative to."""
        own = getattr(self.base, "facts", None)
        return {
            **(own() if own is not None else {}),
            "tilt": self.config.tilt,
            "tilt_normalisation": "loss / detached batch mean loss",
            "tilted_terms": "reconstruction",
        }


def build(config: SSAEConfig, *, site: Site, generator: torch.Generator, base: nn.Module) -> SSAE:
    """Wraps the parent's module."""
    return SSAE(config, base)
