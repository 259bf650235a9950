"""Near-duplicates between what cells were trained on and what they are scored on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.sources.context import Meter
from saebench.api.overlaps import overlap

if TYPE_CHECKING:
    from saebench.activations.sources.held_out_tokens import ScoredTokens
    from saebench.activations.sources.sources import Sources
    from saebench.activations.sources.training import TrainingSource
    from saebench.api.datasets import Document
    from saebench.api.splits import Split
    from saebench.cells.cell import DatasetUse


class NearDuplicates:
    """Compares documents, each pair of sources once. Texts are read again: stores keep tokens alone."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def between(self, training: TrainingSource, scored: ScoredTokens) -> dict[str, Any] | None:
        """`saebench.api.Overlap` of the documents that were read, as JSON; None where either is not made of documents."""
        theirs = self._sources.datasets.get(training.dataset)
        if theirs is None or theirs.kind != "text" or scored.dataset.kind != "text":
            return None
        pair = (training.content, scored.store.facts["content"])
        if pair not in self._found:
            label = f"near-duplicates of '{scored.dataset.name}' in '{theirs.name}'"
            with console.phase("reading", label, unit="doc") as bar:
                found = overlap(
                    self._documents(theirs, "train", training.document_digests, scored, bar),
                    self._documents(scored.dataset, "held-out", scored.documents, scored, bar),
                )
            self._found[pair] = found.to_json()
            where = f"dataset '{scored.dataset.name}' after training on '{theirs.name}'"
            if remark := found.remark(where):
                self._sources.say(f"warning: {remark}")
        return self._found[pair]

    def _documents(
        self, use: DatasetUse, split: Split, digests: frozenset[str], scored: ScoredTokens, bar: Any
    ) -> Iterator[Document]:
        left = set(digests)
        for document in self._sources.texts(use, scored.model, scored.seed, Meter()).documents(split):
            bar.update(1)
            if document.digest in digests:
                yield document
                left.discard(document.digest)
                if not left:
                    return
