"""Losses of a language model with the output of one module replaced.

Positions of special tokens keep their own output under every replacement, so that the SAE, zeros and the mean are
spliced in alike. All losses are natural logarithms, from `log_softmax` in float32. Before the first loss is made, it is
shown on real tokens that the clean activation in its own place gives the clean logits, bit for bit
(`saebench.lm.splicing_proof`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench.lm.hooked_forward import HookedForward
from saebench.lm.loaded import LoadedModel
from saebench.lm.splicing_proof import Proof, prove

_BLOCK_VALUES = 1 << 23
"""Logits turned into log-probabilities at a time."""


@dataclass(frozen=True)
class CleanPass:
    """One unedited forward.

    Attributes:
        ids: `[S, T]`.
        x: `[S, T, d]` output at the hookpoint, float32.
        special: `[S, T]` True at special tokens.
        has_loss: `[S, T]` True at the B positions whose loss counts.
        ce: `[B]` cross-entropy, row by row.
        log_probs: `[B, vocabulary]`, or None where they were let go to save memory.
    """

    ids: Tensor
    x: Tensor
    special: Tensor
    has_loss: Tensor
    ce: Tensor
    log_probs: Tensor | None

    @property
    def targets(self) -> Tensor:
        """`[B]` the next tokens."""
        return self.ids.roll(-1, 1)[self.has_loss]

    @property
    def n_bytes(self) -> int:
        """Memory of everything but the log-probabilities."""
        return self.x.nbytes + self.ids.nbytes + self.special.nbytes + self.has_loss.nbytes + self.ce.nbytes

    def slim(self) -> CleanPass:
        """Without log-probabilities; they are computed again when needed."""
        return replace(self, log_probs=None)


class Splicer:
    """Losses of a causal model, clean and with the output at one hookpoint replaced.

    Attributes:
        lm: The model.
        proof: That splicing is exact here, as the first `clean` shows it; None before.
    """

    proof: Proof | None

    def __init__(self, lm: LoadedModel, hookpoint: str) -> None:
        self.lm = lm
        self.proof = None
        self._forward = HookedForward(lm, hookpoint)

    def clean(self, ids: Tensor, limit: int | None = None) -> CleanPass:
        """The unedited forward of `ids [S, T]`; only the first `limit` positions that have a loss count.

        Raises:
            SuiteError: At the first call: splicing is not exact at this hookpoint.
        """
        ids = ids.to(self.lm.device)
        if self.proof is None:
            self.proof = prove(self._forward, ids)
        x, logits = self._forward.clean(ids)
        has_loss = self.lm.loss_mask(ids)
        if limit is not None:
            has_loss &= (has_loss.flatten().cumsum(0) <= limit).view_as(has_loss)
        clean = CleanPass(ids, x, self.lm.special_mask(ids), has_loss, x.new_empty(0), None)
        log_probs = (
            torch.cat([block for _, block in _log_softmax_blocks(logits[has_loss])])
            if bool(has_loss.any())
            else logits.new_zeros(0, logits.shape[-1])
        )
        ce = -log_probs.gather(1, clean.targets[:, None])[:, 0]
        return replace(clean, ce=ce, log_probs=log_probs)

    def spliced(self, clean: CleanPass, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy `[B]` and KL(clean || edited) `[B]` with `x [S, T, d]` in place of the hookpoint's output."""
        known = clean.log_probs
        if known is None:
            logits = self._logits(clean, clean.x)
            known = torch.cat([block for _, block in _log_softmax_blocks(logits)]) if len(logits) else logits
        logits = self._logits(clean, torch.where(clean.special[..., None], clean.x, x.to(clean.x)))
        targets = clean.targets
        ce, kl = clean.ce.new_empty(len(targets)), clean.ce.new_empty(len(targets))
        for rows, log_q in _log_softmax_blocks(logits):
            ce[rows] = -log_q.gather(1, targets[rows, None])[:, 0]
            log_p = known[rows]
            kl[rows] = (log_p.exp() * (log_p - log_q)).sum(1)
        return ce, kl

    def _logits(self, clean: CleanPass, x: Tensor) -> Tensor:
        """`[B, vocabulary]` at the positions that have a loss, with `x` in place of the output."""
        short = self.proof is not None and self.proof.short
        return self._forward.logits(clean.ids, x, short=short)[clean.has_loss]


def _log_softmax_blocks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their log-probabilities in float32, a bounded number of values at a time."""
    rows = max(1, _BLOCK_VALUES // logits.shape[1])
    for start in range(0, len(logits), rows):
        block = slice(start, min(start + rows, len(logits)))
        yield block, torch.log_softmax(logits[block].float(), dim=1)
