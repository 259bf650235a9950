"""Near-duplicates between what cells were trained on and what they are scored on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.sources.context import Meter
from saebench.api.overlaps import overlap

if TYPE_CHECKING:
    from saebench.activations.sources.context import Context
    from saebench.activations.sources.held_out.shared_data import HeldOutData
    from saebench.activations.sources.training import TrainingSource
    from saebench.api.datasets import Document


class NearDuplicates:
    """Compares documents, each pair of datasets once. Texts are read again: stores keep tokens alone."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: dict[tuple[str, str], dict[str, Any]] = {}

    def between(self, training: TrainingSource, held_out: HeldOutData) -> dict[str, Any] | None:
        """`saebench.api.Overlap` of the documents that were read, as JSON; None where either has no documents."""
        mine, theirs, model = held_out.dataset, self._context.datasets.get(training.dataset), held_out.model
        if theirs is None or theirs.kind != "text" or mine.kind != "text" or model is None:
            return None
        pair = (training.content, held_out.store.facts["content"])
        if pair not in self._found:
            texts = [self._context.texts(use, model, held_out.seed, Meter()) for use in (theirs, mine)]
            label = f"near-duplicates of '{mine.name}' in '{theirs.name}'"
            with console.phase("reading", label, unit="doc") as bar:
                found = overlap(
                    _documents(texts[0].documents("train"), training.document_digests, bar),
                    _documents(texts[1].documents("held-out"), held_out.documents, bar),
                )
            self._found[pair] = found.to_json()
            if remark := found.remark(f"dataset '{mine.name}' after training on '{theirs.name}'"):
                self._context.say(f"warning: {remark}")
        return self._found[pair]


def _documents(documents: Iterator[Document], digests: frozenset[str], bar: Any) -> Iterator[Document]:
    """Those with these digests; reads no further than to the last of them."""
    left = set(digests)
    for document in documents:
        bar.update(1)
        if document.digest in digests:
            yield document
            left.discard(document.digest)
            if not left:
                return
