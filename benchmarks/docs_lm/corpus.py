"""The text that docs-lm is trained on, and the text it is judged on.

Training: the train split of the embedded corpus `docs`, and the English books and textbooks of the material folder.
Judging: the held-out docstrings and two whole held-out novels.  Every training document that shares a run of
`OVERLAP_WORDS` words with a held-out novel is left out, whatever book it says it is from.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.activations.sources.plugin_cache import PluginCache
from saebench.cells.packing import POLICIES
from saebench_plugins.core_datasets.docs.corpus import build_docs

DOCS = "docs, held out"
HELD_OUT_BOOKS = ("Pride-and-Prejudice", "The-War-of-the-Worlds")
OVERLAP_WORDS = 13
HELD_OUT_DOC_BYTES = 1_000_000
DOCS_COPIES = 2
"""The docstrings are a small part of the text and what the built-in suite runs on: they are read twice an epoch."""

CORPORA = {
    "classics": ("part1", "part2", "part3"),
    "gutenberg": ("text",),
    "physics": ("college-physics", "university-physics"),
    "biology": ("microbiology", "anatomy-physiology"),
}
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True)
class LmCorpus:
    """Documents by source, the held-out texts by name (each a list of documents), and facts for the model card."""

    train: dict[str, list[str]]
    held_out: dict[str, list[str]]
    facts: dict[str, Any]

    def train_documents(self) -> list[str]:
        """All training documents, `docs` as often as an epoch reads them."""
        return [
            text
            for source, documents in self.train.items()
            for text in documents * (DOCS_COPIES if source == "docs" else 1)
        ]

    def unseen(self, training: dict[str, Any] | None) -> dict[str, list[str]]:
        """Held-out texts that a model was not trained on: the novels; the docstrings only where it had the corpus and
        the split of today.

        Args:
            training: what `train.py` wrote, or None where that is lost.
        """
        then = training["data"] if training else {}
        same = then.get("held_out") == self.facts["held_out"] and then["docs"]["digest"] == self.facts["docs"]["digest"]
        return {name: texts for name, texts in self.held_out.items() if same or name != DOCS}


def load(material: Path, cache_dir: Path | None = None) -> LmCorpus:
    """Reads and filters everything.

    Args:
        material: folder that holds `corpora/<name>/*.jsonl.gz`.
        cache_dir: where the embedded corpus keeps its cache.
    """
    docs = build_docs(None if cache_dir is None else PluginCache(cache_dir, "docs", print))
    rows = {name: list(_rows(material / "corpora" / name, files)) for name, files in CORPORA.items()}
    books = {book: [row["text"] for row in rows["gutenberg"] if row["book"] == book] for book in HELD_OUT_BOOKS}
    if not all(books.values()):
        raise SystemExit(f"{material}: the gutenberg corpus lacks one of {', '.join(HELD_OUT_BOOKS)}")
    held = {run for texts in books.values() for text in texts for run in _runs(text)}
    candidates = {"docs": docs.train, **{name: [row["text"] for row in found] for name, found in rows.items()}}
    train = {source: [text for text in texts if held.isdisjoint(_runs(text))] for source, texts in candidates.items()}
    facts = {
        "docs": docs.manifest,
        "held_out": POLICIES["text"]["held_out"],
        "held_out_books": {book: sum(len(text.encode()) for text in texts) for book, texts in books.items()},
        "train": {
            source: {
                "documents": len(texts),
                "bytes": sum(len(text.encode()) for text in texts),
                "left_out": len(candidates[source]) - len(texts),
            }
            for source, texts in train.items()
        },
    }
    return LmCorpus(train, {DOCS: first_bytes(docs.held_out, HELD_OUT_DOC_BYTES), **books}, facts)


def first_bytes(documents: list[str], limit: int) -> list[str]:
    """The first documents that together have at most `limit` UTF-8 bytes."""
    chosen, size = [], 0
    for text in documents:
        size += len(text.encode())
        if size > limit:
            break
        chosen.append(text)
    return chosen


def _rows(folder: Path, files: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for name in files:
        with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _runs(text: str) -> set[str]:
    """All runs of `OVERLAP_WORDS` words, in lower case and without punctuation."""
    words = _WORD.findall(text.lower().replace("_", " "))
    return {" ".join(words[start : start + OVERLAP_WORDS]) for start in range(len(words) - OVERLAP_WORDS + 1)}
