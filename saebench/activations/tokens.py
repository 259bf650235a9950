"""From documents to windows of token ids, and what exactly was done on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee
from typing import Any

import torch
from torch import Tensor

from saebench.api.datasets import Document
from saebench.cells.packing import POLICIES

TOKENISE_DOCUMENTS = 256
"""Documents tokenised in one call."""
PIECE_CHARACTERS = 1 << 20
"""Of a document tokenised in one call (cut at a blank): a tokenizer takes some hundred bytes for each."""
SHUFFLE_CHARACTERS = 64_000_000
"""Documents are shuffled within this many characters, so that a big corpus need not fit into memory."""


def token_policy(
    kind: str, *, context: int, bos_id: int, eos_id: int | None, special_ids: Iterable[int]
) -> dict[str, Any]:
    """The policy for a dataset kind, for digests and the record."""
    return {
        **POLICIES[kind],
        "context": context,
        "bos_id": bos_id,
        "eos_id": eos_id,
        "special_ids": sorted(special_ids),
    }


def shuffled(documents: Iterable[Document], seed: int, *, characters: int = SHUFFLE_CHARACTERS) -> Iterator[Document]:
    """Documents in an order by hash of seed and text, within blocks of about `characters` characters."""
    block: list[tuple[bytes, Document]] = []
    size = 0
    for document in documents:
        block.append((hashlib.sha256(f"{seed}:{document.digest}".encode()).digest(), document))
        size += len(document.text)
        if size >= characters:
            yield from (document for _, document in sorted(block, key=lambda pair: pair[0]))
            block, size = [], 0
    yield from (document for _, document in sorted(block, key=lambda pair: pair[0]))


def pack(sequences: Iterable[Sequence[int]], *, context: int, bos_id: int) -> Iterator[list[int]]:
    """Windows of `context` ids: BOS, then `context - 1` ids of the stream of all documents, BOS between two documents.

    Every document begins with BOS, as a model met it in training; an EOS that a model never saw (llama2.c's) would
    disturb it. The last window is dropped when it is short. Empty documents leave no trace.
    """
    width = context - 1
    buffer: list[int] = []
    first = True
    for ids in sequences:
        if not ids:
            continue
        if not first:
            buffer.append(bos_id)
        first = False
        buffer.extend(ids)
        start = 0
        while len(buffer) - start >= width:
            yield [bos_id, *buffer[start : start + width]]
            start += width
        del buffer[:start]


def tokenised(
    documents: Iterable[Document], encode_many: Callable[[Sequence[str]], list[list[int]]], numbers: dict[str, int]
) -> Iterator[tuple[int, list[int]]]:
    """Number and token ids of each document, in order.

    `numbers` gets the digest of each document that is handed out: copies of a document have one number.
    """
    block: list[Document] = []
    size = 0

    def flush() -> Iterator[tuple[int, list[int]]]:
        if not block:
            return
        for document, ids in zip(block, encode_many([document.text for document in block]), strict=True):
            yield numbers.setdefault(document.digest, len(numbers)), ids

    for document in documents:
        if len(document.text) > PIECE_CHARACTERS:
            yield from flush()
            block, size = [], 0
            ids = [token for piece in _pieces(document.text) for token in encode_many([piece])[0]]
            yield numbers.setdefault(document.digest, len(numbers)), ids
            continue
        block.append(document)
        size += len(document.text)
        if len(block) == TOKENISE_DOCUMENTS or size > PIECE_CHARACTERS:
            yield from flush()
            block, size = [], 0
    yield from flush()


def pack_numbered(
    documents: Iterable[tuple[int, Sequence[int]]], *, context: int, bos_id: int
) -> Iterator[tuple[list[int], list[int]]]:
    """`pack`, each window with the number of the document that each of its tokens is from, and -1 at BOS."""
    texts, again = tee(documents)
    numbers = ([number] * len(ids) for number, ids in again)
    return zip(
        pack((ids for _, ids in texts), context=context, bos_id=bos_id),
        pack(numbers, context=context, bos_id=-1),
        strict=True,
    )


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces, each but the first beginning with a blank where there is one."""
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = start + PIECE_CHARACTERS
        cut = max(text.rfind(blank, start + 1, end) for blank in (" ", "\n"))
        cut = cut if cut > start else end
        yield text[start:cut]
        start = cut
    yield text[start:]


def sequence_digest(ids: Tensor) -> str:
    """SHA-256 of a token sequence: the identity of a generated one."""
    return hashlib.sha256(ids.to(torch.int32).numpy().tobytes()).hexdigest()
