"""What training and scoring hand around: batches of activations, and batches with what an SAE made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.api.codes import SparseCodes


@dataclass(frozen=True)
class ActivationBatch:
    """B tokens' activations at one site. Special tokens are already left out.

    Attributes:
        x: `[B, d_in]` float32, what the SAE reads.
        target: `[B, d_out]`, what it must write; `x` itself for an SAE.
        token_ids: `[B]` int64, or None where the site has no tokens.
        positions: `[B]` int64 position in its sequence, or None.
        sequence_ids: `[B]` int64, the cluster for standard errors, or None. Equal ids are one sequence under every seed
            of a dataset.
        truth: True codes (synthetic data only).
    """

    x: Tensor
    target: Tensor
    token_ids: Tensor | None = None
    positions: Tensor | None = None
    sequence_ids: Tensor | None = None
    truth: SparseCodes | None = None

    @property
    def n_tokens(self) -> int:
        """B."""
        return self.x.shape[0]


@dataclass(frozen=True)
class SplicedLosses:
    """Per-token losses in nats `[B]` (float32 or float64): next-token cross-entropy and KL(clean || modified).

    `spliced`: the hook's output replaced by the SAE's reconstruction at every position that is not special;
    `zero` and `mean`: replaced there by zeros, by the mean held-out activation
    (the same for all contenders, and what FVU measures against).
    """

    ce_clean: Tensor
    ce_spliced: Tensor
    ce_zero: Tensor
    ce_mean: Tensor
    kl_spliced: Tensor
    kl_zero: Tensor


@dataclass(frozen=True)
class ScoredBatch:
    """What a streaming metric sees. Fields that no metric asked for on this stream are None.

    Attributes:
        batch: The activations.
        codes: Codes of the inference form.
        x_hat: `[B, d_out]` reconstruction, in the units of `batch.target`.
        losses: Only on stream `loss`.
    """

    batch: ActivationBatch
    codes: SparseCodes | None = None
    x_hat: Tensor | None = None
    losses: SplicedLosses | None = None
