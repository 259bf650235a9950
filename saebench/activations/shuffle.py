"""Block shuffle: the one order in which activations are trained on, whether they lie on disk or come from the model.

Rows come in stream order (documents are shuffled already). Each epoch cuts them into blocks of `block` rows, and block
i of epoch e is permuted by `generator(seed, "block", e, i)`. So the order is a pure function of the number of rows and
the seed, any batch can be reached without reading those before it, and a source needs no more than one block at hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Protocol

import torch
from torch import Tensor

from saebench.activations.store import INDEX, batch_of
from saebench.api.batches import ActivationBatch
from saebench.base.random import generator


class Block(Protocol):
    """Some consecutive rows of a stream, ready to be picked from."""

    def take(self, rows: Tensor) -> ActivationBatch:
        """Rows by their int64 offsets into the block, in the given order; x in float32 on the source's device."""
        ...


class RowProvider(Protocol):
    """A finite stream of activations in a fixed order, from a store or from a model."""

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        ...

    @property
    def d(self) -> int:
        """Values a row."""
        ...

    def block(self, start: int, stop: int) -> Block:
        """Rows `[start, stop)`. May be called from a background thread; asked for in rising order within an epoch."""
        ...

    def head(self, n: int) -> Tensor:
        """`[min(n, n_rows), d]` float32: the first rows."""
        ...

    def open(self) -> None:
        """A reader begins; there may be several."""
        ...

    def close(self) -> None:
        """A reader ended: what was kept for it may be dropped."""
        ...


def spans(n_rows: int, block: int, position: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Blocks from a position in the endless shuffled stream on: `(epoch, index, start, stop, offset)`.

    `offset` is how many rows of the permuted block lie before the position; 0 for all but the first.
    """
    first, within = divmod(position, n_rows)
    index, offset = divmod(within, block)
    for epoch in count(first):
        for start in range(index * block, n_rows, block):
            yield epoch, start // block, start, min(start + block, n_rows), offset
            offset = 0
        index = 0


def shuffled_batches(
    rows: RowProvider, batch: int, seed: int, *, block: int, start: int = 0, prefetch: int = 0
) -> Iterator[ActivationBatch]:
    """Endless batches of exactly `batch` rows; a batch may span blocks and epochs.

    Args:
        rows: Where they come from.
        batch: Rows a batch.
        seed: Decides the permutations.
        block: Rows shuffled together.
        start: Begin as if this many batches had been read and dropped.
        prefetch: Blocks that a background thread makes ahead; no bit depends on it.
    """
    stream = _blocks(rows, seed, block, start * batch, prefetch)
    try:
        here, order = next(stream)
        while True:
            pieces: list[ActivationBatch] = []
            missing = batch
            while missing > len(order):
                if len(order):
                    pieces.append(here.take(order))
                    missing -= len(order)
                del here  # before the next one is made: a live block is large
                here, order = next(stream)
            pieces.append(here.take(order[:missing]))
            order = order[missing:]
            yield pieces[0] if len(pieces) == 1 else joined(pieces)
    finally:
        stream.close()


def _blocks(
    rows: RowProvider, seed: int, block: int, position: int, prefetch: int
) -> Generator[tuple[Block, Tensor], None, None]:
    """Blocks with the offsets still to be handed out, in order."""
    where = spans(rows.n_rows, block, position)
    rows.open()
    executor = ThreadPoolExecutor(1, thread_name_prefix="activations") if prefetch else None
    ahead: deque[tuple[Future[Block], tuple[int, int, int, int, int]]] = deque()
    try:
        while True:
            if executor is None:
                span = next(where)
                made = rows.block(span[2], span[3])
            else:
                while len(ahead) <= prefetch:
                    coming = next(where)
                    ahead.append((executor.submit(rows.block, coming[2], coming[3]), coming))
                future, span = ahead.popleft()
                made = future.result()
                del future
            epoch, index, first, stop, offset = span
            order = torch.randperm(stop - first, generator=generator(seed, "block", epoch, index))
            yield made, order[offset:]
            del made
    finally:
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)
        rows.close()


def joined(pieces: list[ActivationBatch]) -> ActivationBatch:
    """Batches of one source, one behind the other."""
    index = {
        name: torch.cat([getattr(piece, name) for piece in pieces])
        for name in INDEX
        if getattr(pieces[0], name) is not None
    }
    return batch_of(torch.cat([piece.x for piece in pieces]), index)
