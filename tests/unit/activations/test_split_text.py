"""The harness parts text: whatever a plugin gives, no document is on both sides."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from saebench.activations.sources.split_text import SplitText
from saebench.api import Document, PluginError, SuiteError, split_of

TEXTS = [f"text number {number}" for number in range(40)]


class Everything:
    def documents(self):
        return map(Document, TEXTS)

    def manifest(self):
        return {"n": len(TEXTS)}


class Leaky(Everything):
    """Is told the part, and gives both."""

    def documents(self, split):
        self.asked = split
        return super().documents()


def test_parts_are_told_apart_by_the_document_and_keep_their_order():
    text = SplitText(Everything(), "mine")
    train, held_out = ([document.text for document in text.documents(split)] for split in ("train", "held-out"))
    assert sorted(train + held_out) == sorted(TEXTS)
    assert train == [text for text in TEXTS if split_of(Document(text).digest) == "train"]
    assert text.manifest() == {"n": 40}


def test_a_plugin_that_is_told_the_part_cannot_leak():
    plugin = Leaky()
    found = list(SplitText(plugin, "mine").documents("held-out"))
    assert plugin.asked == "held-out"
    assert found
    assert all(split_of(document.digest) == "held-out" for document in found)


@pytest.mark.parametrize(
    ("n", "message"), [(1, "its only document does not fall"), (0, "none of its 0 documents falls")]
)
def test_an_empty_part_is_an_error(n, message):
    class Few(Everything):
        def documents(self):
            return (Document(text) for text in TEXTS[:n] if split_of(Document(text).digest) == "train")

    assert split_of(Document(TEXTS[0]).digest) == "train"
    with pytest.raises(SuiteError, match=f"dataset 'mine': {message} into the held-out part"):
        list(SplitText(Few(), "mine").documents("held-out"))


def test_what_is_no_document_is_the_plugin_s_fault():
    class Texts(Everything):
        def documents(self):
            return iter(TEXTS)

    with pytest.raises(PluginError, match=r"dataset 'mine': documents\(\) must give saebench.api.Document, got str"):
        list(SplitText(Texts(), "mine").documents("train"))


@pytest.mark.parametrize("documents", [None, [Document("a")], max, lambda part: iter(())])
def test_what_cannot_be_asked_for_documents_is_named(documents: object) -> None:
    opened = SimpleNamespace(documents=documents, manifest=dict)
    with pytest.raises(PluginError, match=r"dataset 'mine': .*SimpleNamespace.* documents\(\)"):
        SplitText(opened, "mine")
