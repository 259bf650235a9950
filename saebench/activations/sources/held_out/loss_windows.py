"""Held-out windows with the losses that do not depend on the cell: clean, zeros, mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch, SplicedLosses
from saebench.lm.splicing import CleanPass, Splicer

LOG_PROB_BYTES = 320 << 20
"""Clean log-probabilities kept in memory, for one dataset and seed; beyond it they are computed again."""
CLEAN_BYTES = 256 << 20
"""Clean activations kept in memory for splicing, likewise."""


@dataclass(frozen=True)
class LossBatch:
    """Some held-out windows with their losses.

    Attributes:
        x: `[P, d]` activations at all non-special positions; reconstruct all of them.
        batch: The B positions of them that have a next-token loss.
        rows: `[B]` int64, their rows in `x`.
    """

    x: Tensor
    batch: ActivationBatch
    rows: Tensor
    _clean: CleanPass
    _splicer: Splicer
    _zero: tuple[Tensor, Tensor]
    _mean: Tensor

    def splice(self, x_hat: Tensor) -> SplicedLosses:
        """Losses with `x_hat [P, d]`, in the units of `x`, in place of `x`; special positions keep their activation."""
        x = self._clean.x.clone()
        x[~self._clean.special] = x_hat.detach().to(x)
        ce, kl = self._splicer.spliced(self._clean, x)
        return SplicedLosses(
            ce_clean=self._clean.ce,
            ce_spliced=ce,
            ce_zero=self._zero[0],
            ce_mean=self._mean,
            kl_spliced=kl,
            kl_zero=self._zero[1],
        )


class LossSet:
    """The first windows that hold `n_tokens` losses. Clean, zero and mean losses are computed once.

    Args:
        splicer: At the hookpoint.
        windows: `[S, T]` held-out token ids.
        n_tokens: Positions with a loss, at most.
        mean: `[d]` mean of stream `eval`. The same for all contenders, and what FVU measures against: a mean of each
            contender's own training data would give each a floor of its own.
        documents: `[S, T]` the document that each token is from. None: each window is its own.
    """

    def __init__(
        self, splicer: Splicer, windows: Tensor, n_tokens: int, mean: Tensor, documents: Tensor | None = None
    ) -> None:
        self.splicer, self.mean, self.documents = splicer, mean, documents
        lm = splicer.lm
        counts = lm.loss_mask(windows).sum(1).cumsum(0)
        enough = int((counts < n_tokens).sum()) + 1
        self.windows = windows[:enough]
        self.n_tokens = min(n_tokens, int(counts[-1]))
        rows = lm.rows_per_forward(windows.shape[1], logits=True)
        starts = range(0, len(self.windows), rows)
        before = [int(counts[start - 1]) if start else 0 for start in starts]
        self._blocks = [
            (self.windows[start : start + rows], self.n_tokens - done, start)
            for start, done in zip(starts, before, strict=True)
        ]
        self._clean: list[CleanPass | None] = []
        self._zero: list[tuple[Tensor, Tensor]] = []
        self._mean: list[Tensor] = []

    def batches(self) -> Iterator[LossBatch]:
        """All blocks, in order."""
        for number, (ids, limit, first) in enumerate(self._blocks):
            clean = self._pass(number, ids, limit)
            if len(self._zero) == number:
                self._zero.append(self.splicer.spliced(clean, torch.zeros_like(clean.x)))
            if len(self._mean) == number:
                self._mean.append(self.splicer.spliced(clean, self.mean.to(clean.x).expand_as(clean.x))[0])
            yield self._batch(clean, first, self._zero[number], self._mean[number])

    def _pass(self, number: int, ids: Tensor, limit: int) -> CleanPass:
        if number < len(self._clean):
            kept = self._clean[number]
            return kept if kept is not None else self.splicer.clean(ids, limit)
        clean = self.splicer.clean(ids, limit)
        logs = sum(old.log_probs.nbytes for old in self._clean if old is not None and old.log_probs is not None)
        rest = sum(old.n_bytes for old in self._clean if old is not None)
        keep = (
            clean if clean.log_probs is not None and logs + clean.log_probs.nbytes <= LOG_PROB_BYTES else clean.slim()
        )
        self._clean.append(keep if rest + keep.n_bytes <= CLEAN_BYTES else None)
        return clean

    def _batch(self, clean: CleanPass, first: int, zero: tuple[Tensor, Tensor], mean: Tensor) -> LossBatch:
        real = ~clean.special
        x = clean.x[real]
        place = (real.flatten().cumsum(0) - 1).view_as(clean.ids)
        windows, positions = clean.has_loss.nonzero(as_tuple=True)
        rows = place[clean.has_loss]
        with_loss = x[rows]
        batch = ActivationBatch(with_loss, with_loss, clean.ids[clean.has_loss], positions, windows + first)
        if self.documents is not None:
            documents = self.documents[first : first + len(clean.ids)].to(x.device)
            batch = replace(batch, document_ids=documents[clean.has_loss])
        return LossBatch(x, batch, rows, clean, self.splicer, zero, mean)
