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
        sequence_ids: `[B]` int64, the window of a model (or block of rows) a token is from, or None. Of a dataset of
            vectors, equal ids are one sequence under every seed.
        truth: True codes (synthetic data only).
        document_ids: `[B]` int64, the document a token is from, or None where a sequence is a document of its own. A
            document may run over several windows, and a window may hold several documents.
    """

    x: Tensor
    target: Tensor
    token_ids: Tensor | None = None
    positions: Tensor | None = None
    sequence_ids: Tensor | None = None
    truth: SparseCodes | None = None
    document_ids: Tensor | None = None

    @property
    def clusters(self) -> Tensor | None:
        """`[B]` int64, the unit of standard errors: a token's document, or else its sequence."""
        return self.document_ids if self.document_ids is not None else self.sequence_ids

    @property
    def n_tokens(self) -> int:
        """B."""
        return self.x.shape[0]


@dataclass(frozen=True)
class SplicedLosses:
    """Per-token losses in nats `[B]` (float32 or float64): next-token cross-entropy and KL(clean || modified).

    `spliced`: the hook's output replaced by the SAE's reconstruction at every position that is not special;
    `zero` and `mean`: replaced there by zeros, by the mean activation of stream
    `eval` (the same for all contenders, and what FVU measures against).
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
        x_hat_16bit: `[B, d_out]` reconstruction from codes that were rounded to bfloat16.
    """

    batch: ActivationBatch
    codes: SparseCodes | None = None
    x_hat: Tensor | None = None
    losses: SplicedLosses | None = None
    x_hat_16bit: Tensor | None = None
