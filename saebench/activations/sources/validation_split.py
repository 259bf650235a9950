"""Validation and test: the two parts of the held-out data in a suite that tunes.

A search takes its winner on the validation part; every contender of the suite is scored on the test part. The part does
not depend on dataset, seed or run. The digest of a document or of a generated sequence decides its part. The document
of a vector, or its sequence, decides the vector's part, because neighbours are alike; a vector without either goes by
its values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch

from saebench.activations.store import INDEX
from saebench.api.batches import ActivationBatch

if TYPE_CHECKING:
    from torch import Tensor

HeldOutPart = Literal["validation", "test"]

VALIDATION_ONE_IN = 4
ASKED = {"validation": 6, "test": 2}
"""A generator of data is asked for this many times as much, so that enough of it belongs to the part."""


def part_of(digest: str) -> HeldOutPart:
    """`validation` for one in four, by a hash of its own: the first bits of the digest decide what is held out."""
    code = hashlib.sha256(f"validation:{digest}".encode()).digest()
    return "validation" if int.from_bytes(code[:8], "big") % VALIDATION_ONE_IN == 0 else "test"


def vector_digests(batch: ActivationBatch) -> list[str]:
    """What decides the part of each vector: its document or sequence, or SHA-256 of its values."""
    if batch.clusters is not None:
        return [f"sequence:{number}" for number in batch.clusters.tolist()]
    rows = batch.x.detach().float().cpu().contiguous().numpy()
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]


def vectors_of(
    batches: Iterator[ActivationBatch], part: HeldOutPart, n_rows: int, digests: set[str]
) -> Iterator[ActivationBatch]:
    """The first `n_rows` vectors of a part, or all there are. The digests that decided are added to `digests`."""
    left = n_rows
    for batch in batches:
        codes = vector_digests(batch)
        rows = torch.tensor([row for row, code in enumerate(codes) if part_of(code) == part], dtype=torch.long)[:left]
        digests.update(codes[row] for row in rows.tolist())
        left -= len(rows)
        if len(rows):
            yield _rows(batch, rows.to(batch.x.device))
        if left == 0:
            return


def _rows(batch: ActivationBatch, rows: Tensor) -> ActivationBatch:
    def taken(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[rows]

    x = batch.x[rows]
    truth = None if batch.truth is None else batch.truth.select(rows)
    index = {name: taken(getattr(batch, name)) for name in INDEX}
    return ActivationBatch(x, x if batch.target is batch.x else batch.target[rows], **index, truth=truth)
