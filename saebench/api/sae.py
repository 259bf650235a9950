"""The contract of a sparse autoencoder: what the harness calls, and what it hands over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from saebench.api.batches import ActivationBatch
    from saebench.api.codes import SparseCodes


@dataclass(frozen=True)
class StepInfo:
    """How far training is when a step is taken.

    Attributes:
        index: Step number from 0.
        progress: Spent over allotment before this step, in [0, 1).
        tokens_seen: Tokens this cell trained on before this step.
        tokens_allotted: Tokens it will train on. Dead-latent windows are fractions of it.
    """

    index: int
    progress: float
    tokens_seen: int
    tokens_allotted: int


@dataclass(frozen=True)
class LossTerms:
    """The loss, term by term; the harness reduces: mean (or token-weighted sum) of `reconstruction` plus all penalties.

    Attributes:
        reconstruction: `[B]`, one loss a token.
        penalties: Scalars already multiplied by their coefficients.
        codes: This batch's codes, if the architecture has them at hand. They save work: dead latents and the charge of
            sparse work go by them. At points of the trajectory they must be those that the module itself gives.
        x_hat: `[B, d_out]` reconstruction, if at hand; held to the module's own in the same way.
        facts: Plain numbers worth recording for this step (a tilt's effective sample size).
        flops: Work of this step that the architecture's `Cost` does not know of, because it depends on the state
            (AuxK).
    """

    reconstruction: Tensor
    penalties: Mapping[str, Tensor] = field(default_factory=dict)
    codes: SparseCodes | None = None
    x_hat: Tensor | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    flops: int = 0


@dataclass(frozen=True)
class UnitRows:
    """Constraint: every row of the parameter has norm 1. The harness projects the gradient, steps, renormalises."""


@dataclass(frozen=True)
class NonNegative:
    """Constraint: the parameter stays at or above `floor`; the harness clamps after the step."""

    floor: float = 0.0


Constraint = UnitRows | NonNegative


@dataclass(frozen=True)
class AfterStep:
    """What `after_step` gets.

    Attributes:
        batch: The batch of this step.
        terms: Its loss terms, detached.
        step: How far training is.
        generator: The cell's own generator.
        reset_moments: `reset_moments(parameter, rows)` zeroes the optimiser's moments of those rows.
    """

    batch: ActivationBatch
    terms: LossTerms
    step: StepInfo
    generator: torch.Generator
    reset_moments: Callable[[Tensor, Tensor], None]


REQUIRED_METHODS = ("encode", "decode", "training_loss")
OPTIONAL_METHODS = (
    "init_from_data", "param_groups", "constraints", "training_codes", "loss_and_grad", "token_weights", "after_step",
    "finalize", "fit", "decoder_directions", "encoder_directions", "stored_bytes", "learned_values", "support_digest",
    "facts",
)  # fmt: skip
"""What the harness calls. `SparseAutoencoder` says how."""


@runtime_checkable
class SparseAutoencoder(Protocol):
    """A `torch.nn.Module` with these methods. Required: `encode`, `decode`, `training_loss`.

    Optional, used where they exist (the harness asks with `getattr`):
        `init_from_data(x [n, d_in], generator)`: set biases and thresholds from a sample, before the first step. Never
            called where the weights come from a parent.
        `param_groups(lr) -> list[dict]`: torch optimiser groups; each group's `lr` is the peak of its own schedule.
        `constraints() -> {parameter name: Constraint}`: applied by the harness.
        `training_codes(x) -> SparseCodes | Tensor`: codes of the training form, where `encode` gives others until
            `finalize` (BatchTopK); what is noted of quality during training goes by them.
        `loss_and_grad(batch, step, token_weights=None) -> LossTerms`: fills (sets, not adds) every parameter's `.grad`
            with the gradient of the reduced loss itself, in place of autograd through `training_loss`, and returns the
            terms detached. `token_weights` maps detached losses `[B]` to weights `[B]` of sum 1; None means the mean. A
            contract check holds both equal.
        `token_weights(losses [B], step) -> [B]`: weights (sum 1) over tokens in place of the mean; losses are detached.
        `after_step(AfterStep)`: after each step, under `torch.no_grad()`: resampling of dead latents, say.
        `finalize(batches: Iterable[Tensor [B, d_in]])`: make the inference form, once, before the checkpoint.
        `fit(batches: Iterable[Tensor [B, d_in]], generator)`: in place of training where nothing has a gradient.
        `decoder_directions()`, `encoder_directions()`: `[d_sae, d_in]`, for matching; default `W_dec`, `W_enc`.
        `stored_bytes() -> int`, `learned_values() -> int`: default: all of the state dict; all parameters.
        `support_digest() -> str | None`: digest of a frozen support. A child's must equal its parent's. Stability by
            cosine is null where seeds differ in it.
        `facts() -> dict`: JSON-ready facts for the record (mask seed, bytes with row ids, ...).
    """

    d_in: int
    d_sae: int

    def encode(self, x: Tensor) -> SparseCodes | Tensor:
        """Codes of `x [B, d_in]`; a dense `[B, d_sae]` answer is converted."""
        ...

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_out]` reconstruction."""
        ...

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """The loss of one batch, with gradient."""
        ...
