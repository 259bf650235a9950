"""Dataset `docs` wraps the embedded corpus."""

from __future__ import annotations

import pytest

import saebench_plugins.core_datasets.docs.dataset as docs
from saebench_plugins.core_datasets.docs import corpus as docs_corpus
from saebench_plugins.core_datasets.docs.corpus import DocsCorpus
from saebench_plugins.core_datasets.plugin import DocsOptions


def test_both_parts_and_the_manifest(context, monkeypatch):
    asked = []

    def build(keep):
        asked.append(keep)
        return DocsCorpus(["a", "b"], ["c"], {"digest": "d"})

    monkeypatch.setattr(docs, "build_docs", build)
    opened = docs.open_docs(DocsOptions(), context)
    assert [document.text for document in opened.documents()] == ["a", "b", "c"]
    assert opened.manifest() == {"digest": "d"}
    assert asked == [context.keep]


def test_the_recipe_names_versions(monkeypatch):
    before = docs.versions(DocsOptions())
    assert before["distributions"]["torch"]
    monkeypatch.setattr(docs_corpus.importlib.metadata, "version", lambda name: "0.0")
    assert docs.versions(DocsOptions()) != before
    monkeypatch.setattr(docs_corpus.importlib.metadata, "version", lambda name: "0.0+cu130")
    assert set(docs.versions(DocsOptions())["distributions"].values()) == {"0.0"}  # another build, the same text
    with pytest.raises(TypeError):
        DocsOptions(text_column="text")
