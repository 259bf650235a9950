"""Losses of a language model with a hookpoint's output replaced.

Positions of special tokens keep their own output under every replacement, so that the SAE, zeros and the mean are spliced in
alike. All losses are natural logarithms, from `log_softmax` in float32.

Models write into tensors: a parallel block adds its attention to the output of its MLP in place. So what is kept of a module's
output is a copy, and what is put in its place is a copy of what is kept. `saebench.lm.splicing_proof` shows at each hookpoint, before any
loss is made, that the clean activation in its own place gives the clean logits, bit for bit.

When the hookpoint is a block, blocks up to it need not run again for an edited forward: what they would compute is replaced
anyway. The short way is taken only after it has given the same logits as the full way, bit for bit, on the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.api.errors import SuiteError
from saebench.lm.splicing_proof import Proof, prove
from saebench.lm.trace import read_output

if TYPE_CHECKING:
    from saebench.lm.model import LanguageModel

_BLOCK_VALUES = 1 << 23
"""Logits turned into log-probabilities at a time."""


@dataclass(frozen=True)
class CleanPass:
    """One unedited forward.

    Attributes:
        ids: `[S, T]`.
        x: `[S, T, d]` output at the hookpoint, float32.
        special: `[S, T]` True at special tokens.
        scored: `[S, T]` True at the B positions whose loss counts.
        ce: `[B]` cross-entropy, row by row.
        log_probs: `[B, vocabulary]`, or None where they were let go to save memory.
    """

    ids: Tensor
    x: Tensor
    special: Tensor
    scored: Tensor
    ce: Tensor
    log_probs: Tensor | None

    @property
    def targets(self) -> Tensor:
        """`[B]` the next tokens."""
        return self.ids.roll(-1, 1)[self.scored]

    @property
    def n_bytes(self) -> int:
        """Memory of everything but the log-probabilities."""
        return self.x.nbytes + self.ids.nbytes + self.special.nbytes + self.scored.nbytes + self.ce.nbytes

    def slim(self) -> CleanPass:
        """Without log-probabilities; they are computed again when needed."""
        return replace(self, log_probs=None)


def with_first(output: Any, x: Tensor) -> Any:
    """A module's output with its first tensor replaced by a copy of `x`: what runs on may write into it."""
    if isinstance(output, Tensor):
        return x.to(output.dtype, copy=True)
    if isinstance(output, tuple):
        first = x.to(output[0].dtype, copy=True)
        named = getattr(output, "_fields", None)
        return output._replace(**{named[0]: first}) if named else (first, *output[1:])  # type: ignore[attr-defined]
    if isinstance(output, list):
        return [x.to(output[0].dtype, copy=True), *output[1:]]
    copied = copy(output)
    key = next(iter(output))
    copied[key] = x.to(output[key].dtype, copy=True)
    return copied


def _is_plain(output: Any) -> bool:
    """True when nothing but the first tensor of an output carries anything."""
    return isinstance(output, Tensor) or (
        isinstance(output, tuple) and not any(isinstance(item, Tensor) for item in output[1:])
    )


class Splicer:
    """Clean and edited forwards of a causal model at one hookpoint.

    Attributes:
        proof: That splicing is exact here, as the first `clean` shows it; None before.
    """

    proof: Proof | None

    def __init__(self, lm: LanguageModel, hookpoint: str) -> None:
        self.lm = lm
        self.hookpoint = hookpoint
        blocks, _, index = hookpoint.rpartition(".")
        modules = (
            list(lm.model.get_submodule(blocks).children())
            if blocks == lm.facts.trace.blocks and index.isdigit()
            else []
        )
        skipped = modules[: int(index) + 1] if modules else []
        # a block whose forward was wrapped by somebody must stay wrapped
        self._blocks = [] if any("forward" in block.__dict__ for block in skipped) else skipped
        self.proof = None
        self._form: Any = None

    @property
    def can_skip(self) -> bool:
        """Whether there may be a short way: the hookpoint is a block, and nothing but its first tensor carries anything."""
        return bool(self._blocks) and self._form is not None

    def clean(self, ids: Tensor, limit: int | None = None) -> CleanPass:
        """The unedited forward of `ids [S, T]`; only the first `limit` positions that have a loss count.

        Raises:
            SuiteError: At the first call: splicing is not exact at this hookpoint.
        """
        ids = ids.to(self.lm.device)
        if self.proof is None:
            self.proof = prove(self, ids)
        x, logits = self.forward(ids)
        scored = self.lm.scored_mask(ids)
        if limit is not None:
            scored &= (scored.flatten().cumsum(0) <= limit).view_as(scored)
        clean = CleanPass(ids, x, self.lm.special_mask(ids), scored, x.new_empty(0), None)
        log_probs = (
            torch.cat([part for _, part in _log_softmax_blocks(logits[scored])])
            if bool(scored.any())
            else logits.new_zeros(0, logits.shape[-1])
        )
        ce = -log_probs.gather(1, clean.targets[:, None])[:, 0]
        return replace(clean, ce=ce, log_probs=log_probs)

    def spliced(self, clean: CleanPass, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy `[B]` and KL(clean || edited) `[B]` with `x [S, T, d]` in place of the hookpoint's output."""
        known = clean.log_probs
        if known is None:
            logits = self.logits(clean.ids, clean.x)[clean.scored]
            known = torch.cat([part for _, part in _log_softmax_blocks(logits)]) if len(logits) else logits
        logits = self.logits(clean.ids, torch.where(clean.special[..., None], clean.x, x.to(clean.x)))[clean.scored]
        targets = clean.targets
        ce, kl = clean.ce.new_empty(len(targets)), clean.ce.new_empty(len(targets))
        for rows, log_q in _log_softmax_blocks(logits):
            ce[rows] = -log_q.gather(1, targets[rows, None])[:, 0]
            log_p = known[rows]
            kl[rows] = (log_p.exp() * (log_p - log_q)).sum(1)
        return ce, kl

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """`x [S, T, d]` in float32 and the logits `[S, T, vocabulary]` of an unedited forward.

        Raises:
            SuiteError: The module ran not once, or put out no `[S, T, d]`.
        """
        kept: list[Tensor] = []

        def keep(_module: torch.nn.Module, _args: Any, output: Any) -> None:
            tensor = read_output(output, ids, f"hookpoint '{self.hookpoint}' of model '{self.lm.facts.id}'")
            kept.append(tensor.detach().clone().float())
            self._form = with_first(output, tensor[:0]) if _is_plain(output) else None

        with self.lm.hooks({self.hookpoint: keep}):
            logits = self._run(ids)
        if len(kept) != 1:
            raise SuiteError(
                f"hookpoint '{self.hookpoint}' of model '{self.lm.facts.id}' ran {len(kept)} times in one forward; an SAE needs a place that runs once."
            )
        return kept[0], logits

    def logits(self, ids: Tensor, x: Tensor, *, short: bool | None = None) -> Tensor:
        """Logits `[S, T, vocabulary]` with `x [S, T, d]` in place of the output; `short` chooses the way, default: the proven one."""
        if self.proof is not None and self.proof.short if short is None else short:
            with self._skipping(x):
                return self._run(ids)

        def edit(_module: torch.nn.Module, _args: Any, output: Any) -> Any:
            return with_first(output, x)

        with self.lm.hooks({self.hookpoint: edit}):
            return self._run(ids)

    def _run(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.lm.run(ids).logits
        return logits

    @contextmanager
    def _skipping(self, x: Tensor) -> Iterator[None]:
        """Blocks before the hookpoint hand their input on; the block of the hookpoint puts out `x`."""

        def passes(*args: Any, **kwargs: Any) -> Any:
            return with_first(self._form, args[0] if args else kwargs["hidden_states"])

        def puts_out(*_args: Any, **_kwargs: Any) -> Any:
            return with_first(self._form, x)

        stand_ins: list[Callable[..., Any]] = [passes] * (len(self._blocks) - 1) + [puts_out]
        try:
            for block, stand_in in zip(self._blocks, stand_ins, strict=True):
                block.forward = stand_in
            yield
        finally:
            for block in self._blocks:
                block.__dict__.pop("forward", None)


def _log_softmax_blocks(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their log-probabilities in float32, a bounded number of values at a time."""
    rows = max(1, _BLOCK_VALUES // logits.shape[1])
    for start in range(0, len(logits), rows):
        part = slice(start, min(start + rows, len(logits)))
        yield part, torch.log_softmax(logits[part].float(), dim=1)
