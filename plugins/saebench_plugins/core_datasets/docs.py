"""Dataset `docs`: the embedded corpus."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from typing import Any

from saebench.api import DatasetContext, Document, Split
from saebench_plugins.core_datasets.docs_catalogue import CATALOGUE, EXTRACTOR_VERSION, STDLIB
from saebench_plugins.core_datasets.docs_corpus import build_docs
from saebench_plugins.core_datasets.plugin import DocsOptions


class DocsText:
    """Docstrings as prose, split by document hash."""

    def __init__(self, context: DatasetContext) -> None:
        self._corpus = build_docs(context.keep)

    def documents(self, split: Split) -> Iterator[Document]:
        """One part, in the order of the documents' digests."""
        texts = self._corpus.train if split == "train" else self._corpus.held_out
        return (Document(text, f"docs[{number}]") for number, text in enumerate(texts))

    def manifest(self) -> Mapping[str, Any]:
        """Distributions with versions, counts, digest."""
        return self._corpus.manifest


def versions() -> Mapping[str, Any]:
    """What decides the content: the extractor and the version of each distribution (None where it is not installed)."""

    def version(name: str) -> str | None:
        try:
            return platform.python_version() if name == STDLIB else importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {
        "extractor": EXTRACTOR_VERSION,
        "distributions": {source.name: version(source.name) for source in CATALOGUE},
    }


def open_docs(_options: DocsOptions, context: DatasetContext) -> DocsText:
    """Builds the corpus, or reads it from the cache."""
    return DocsText(context)
