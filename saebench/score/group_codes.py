"""Codes of a group's members on one held-out stream: made when a metric first reads them, kept where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from saebench.activations.sources.held_out.streams import HeldOut
from saebench.api import ScoringFacts, SparseCodes
from saebench.plan.grouping.groups import GROUP_CODES_BYTES
from saebench.score.runner import Runner


class Allowance:
    """Bytes that the members of a group may keep together."""

    def __init__(self, free: int = GROUP_CODES_BYTES) -> None:
        self.free = free

    def take(self, n_bytes: int) -> bool:
        """True, and so many fewer are free, where they fit."""
        fits = n_bytes <= self.free
        self.free -= n_bytes if fits else 0
        return fits


@dataclass(frozen=True)
class _Kept:
    """One batch as it is kept: 8 bytes an entry."""

    values: Tensor
    latents: Tensor
    offsets: Tensor
    d_sae: int

    @property
    def n_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in (self.values, self.latents, self.offsets))

    @classmethod
    def of(cls, codes: SparseCodes) -> _Kept:
        """Float32 values, int32 indices, on the CPU, without zeros: a repeat is the same bit for bit."""
        found = codes.detach().nonzero()
        return cls(found.values.float().cpu(), found.latents.int().cpu(), found.offsets.int().cpu(), codes.d_sae)

    def codes(self) -> SparseCodes:
        return SparseCodes(self.values, self.latents.long(), self.offsets.long(), self.d_sae)


class HeldOutCodes:
    """Codes of one SAE on the first tokens of stream `eval`; calling it begins anew (`GroupMember.codes`).

    They come on the CPU, values in float32, without zeros and without what `encode` leaves for `decode`.

    Args:
        sae: In inference form.
        d_out: Width that it writes.
        source: Opens the held-out data, when the codes are first asked for.
        n_tokens: Tokens to read at most, a multiple of `batch`.
        batch: Tokens a batch; the same for all members of a group, so that their batches pair up.
        label: Named in errors.
        allowance: What the group may keep, shared by its members.
    """

    def __init__(
        self,
        sae: Any,
        d_out: int,
        source: Callable[[], HeldOut],
        *,
        n_tokens: int,
        batch: int,
        label: str,
        allowance: Allowance,
    ) -> None:
        self._runner = Runner(sae, d_out, ScoringFacts(), label, decoder=None, side=None)
        self._source, self._n_batches, self._batch, self._allowance = source, n_tokens // batch, batch, allowance
        self._kept: list[_Kept] | None = None
        self._fits = True

    def __call__(self) -> Iterator[SparseCodes]:
        """Codes batch by batch, in the order of the tokens."""
        return iter(map(_Kept.codes, self._kept if self._kept is not None else self._read()))

    def _read(self) -> Iterator[_Kept]:
        pieces: list[_Kept] | None = [] if self._fits else None
        taken = 0
        try:
            for batch in islice(self._source().stream("eval", self._batch), self._n_batches):
                with torch.no_grad():
                    made = _Kept.of(self._runner.encode(batch.x))
                if pieces is not None and self._allowance.take(made.n_bytes):
                    pieces.append(made)
                    taken += made.n_bytes
                elif pieces is not None:
                    pieces, self._fits = None, False
                    self._allowance.free += taken
                    taken = 0
                yield made
            if self._kept is None and pieces is not None:
                self._kept, taken = pieces, 0
        finally:
            self._allowance.free += taken  # left in the middle, or read twice at once: what was put by goes
