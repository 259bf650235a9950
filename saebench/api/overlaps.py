"""Near-duplicates on both sides of a split: how much of the held-out text is in the training text as well.

Copies cannot be on both sides (`splits.folded`). A reworded copy, a shared passage or a shared frame can. A document's
runs of `RUN_WORDS` words (Broder 1997, shingles) show all three: a held-out document counts as a near-duplicate when at
least `MIN_SHARED` of its runs occur in training documents, in one of them or in several.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from saebench.api.datasets import Document

RUN_WORDS = 5
MIN_SHARED = 0.5
MAX_HELD_OUT = 1000
"""Held-out documents looked at: those of the lowest digests."""
MAX_DOCUMENT_CHARACTERS = 20_000
"""Characters of a document looked at."""
MAX_TRAIN_CHARACTERS = 1 << 24
"""Characters of training documents looked at, in the order they come."""
REMARKABLE, REMARKABLE_RUNS = 0.01, 0.3
"""Shares of near-duplicates, and of shared runs, from which on a person is told. Children's stories share 0.14 of their
runs."""

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """What was found.

    Attributes:
        held_out_documents, train_documents: Documents looked at.
        near_duplicates: Held-out documents of which at least `min_shared` of the runs are in training documents.
        shared_runs: Share of all runs of the held-out documents that are in training documents.
        run_words, min_shared: See the module.
    """

    held_out_documents: int
    train_documents: int
    near_duplicates: int
    shared_runs: float
    run_words: int = RUN_WORDS
    min_shared: float = MIN_SHARED

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)

    def remark(self, where: str) -> str | None:
        """A line for a person, where the share is worth one."""
        if self.near_duplicates <= REMARKABLE * self.held_out_documents and self.shared_runs <= REMARKABLE_RUNS:
            return None
        return (
            f"{where}: {self.near_duplicates:,} of {self.held_out_documents:,} held-out documents are near-duplicates "
            "of training documents "
            f"(training documents hold at least {self.min_shared:.0%} of their runs of {self.run_words} words, and "
            f"{self.shared_runs:.0%} of the runs of all held-out documents): "
            "scores favour what remembers. Take near-duplicates and shared passages out of the corpus."
        )


def overlap(train: Iterable[Document], held_out: Iterable[Document]) -> Overlap:
    """Compares a sample of the held-out documents with the training documents. Deterministic, in bounded memory and
    time."""
    sample = heapq.nsmallest(MAX_HELD_OUT, _distinct(held_out), key=lambda document: document.digest)
    runs = [set(_runs(document.text)) for document in sample]
    ours = set().union(*runs)
    found: set[int] = set()
    n_train = characters = 0
    for document in train:
        found.update(ours.intersection(_runs(document.text)))
        n_train += 1
        characters += len(document.text)
        if characters >= MAX_TRAIN_CHARACTERS:
            break
    shared = [len(found & of_one) for of_one in runs]
    total = sum(map(len, runs))
    return Overlap(
        len(sample),
        n_train,
        sum(n >= MIN_SHARED * len(of_one) for n, of_one in zip(shared, runs, strict=True)),
        round(sum(shared) / total, 6) if total else 0.0,
    )


def _distinct(documents: Iterable[Document]) -> Iterator[Document]:
    seen: set[str] = set()
    for document in documents:
        if document.digest not in seen:
            seen.add(document.digest)
            yield Document(document.text[:MAX_DOCUMENT_CHARACTERS], document.name)


def _runs(text: str) -> list[int]:
    """Hashes of the runs of words; of all words together where they are fewer."""
    words: Sequence[str] = _WORD.findall(text[:MAX_DOCUMENT_CHARACTERS].lower())
    if len(words) < RUN_WORDS:
        return [hash(tuple(words))]
    return list(map(hash, zip(*(islice(words, start, None) for start in range(RUN_WORDS)), strict=False)))
