"""Dataset `docs`: the embedded corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from saebench.api import DatasetContext, Document
from saebench_plugins.core_datasets.docs.catalogue import CATALOGUE, EXTRACTOR_VERSION
from saebench_plugins.core_datasets.docs.corpus import build_docs, installed_version
from saebench_plugins.core_datasets.plugin import DocsOptions


class DocsText:
    """Docstrings as prose."""

    def __init__(self, context: DatasetContext) -> None:
        self._corpus = build_docs(context.keep)

    def documents(self) -> Iterator[Document]:
        """Those of each part in the order of their SHA-256."""
        texts = chain(self._corpus.train, self._corpus.held_out)
        return (Document(text, f"docs[{number}]") for number, text in enumerate(texts))

    def manifest(self) -> Mapping[str, Any]:
        """Distributions with versions, counts, digest."""
        return self._corpus.manifest


def versions(_options: DocsOptions) -> Mapping[str, Any]:
    """What decides the content: the extractor and the version of each distribution (None where it is not installed)."""
    return {
        "extractor": EXTRACTOR_VERSION,
        "distributions": {source.name: installed_version(source) for source in CATALOGUE},
    }


def open_docs(_options: DocsOptions, context: DatasetContext) -> DocsText:
    """Builds the corpus, or reads it from the cache."""
    return DocsText(context)
