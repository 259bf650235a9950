"""Dataset `subdomain`: documents of another dataset near query phrases, ranked inside train and held-out apart."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saebench.api import DatasetContext, Document, Split, SplitDataset, SuiteError
from saebench_plugins.core_datasets.plugin import SubdomainOptions

K1, B = 1.2, 0.75
"""Okapi's term saturation and length normalisation, at the values of Robertson & Zaragoza 2009."""
DENSE_TOKENS = 256
"""A document's first tokens, which its dense embedding is made of."""
DENSE_DOCUMENTS = 256
"""Documents embedded at a time."""
_WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Lower-case words without plural endings (the S stemmer of Harman 1991)."""
    return [_singular(word) for word in _WORD.findall(text.lower())]


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("es") and not word.endswith(("aes", "ees", "oes")):
        return word[:-1]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("us", "ss")):
        return word[:-1]
    return word


def bm25(texts: Iterable[str], queries: Sequence[str]) -> NDArray[np.float64]:
    """`[documents, queries]` Okapi BM25 (Robertson & Zaragoza 2009, eq. 3.15), statistics over these documents alone.

    `sum_t idf(t) tf (k1 + 1) / (tf + k1 (1 - b + b length / mean length))` over the distinct words t of a query, with
    `idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5))`, which is never negative.
    """
    asked = [sorted(set(words(query))) for query in queries]
    vocabulary = {term: column for column, term in enumerate(sorted({term for terms in asked for term in terms}))}
    rows, lengths = [], []
    for text in texts:
        found = words(text)
        counts = Counter(word for word in found if word in vocabulary)
        rows.append([counts[term] for term in vocabulary])
        lengths.append(len(found))
    if not rows:
        return np.zeros((0, len(queries)))
    tf = np.array(rows, dtype=np.float64)
    length = np.array(lengths, dtype=np.float64)
    df = (tf > 0).sum(0)
    idf = np.log(1 + (len(tf) - df + 0.5) / (df + 0.5))
    relative = length / max(length.mean(), 1.0)
    weight = idf * tf * (K1 + 1) / (tf + K1 * (1 - B + B * relative)[:, None])
    return np.stack([weight[:, [vocabulary[term] for term in terms]].sum(1) for terms in asked], axis=1)


def dense(texts: Iterable[str], queries: Sequence[str], context: DatasetContext) -> tuple[NDArray[np.float64], int]:
    """`[documents, queries]` cosine of mean hidden states less their mean over the documents, and tokens read.

    Hidden states share one large direction; without taking the mean away all cosines are near 1.
    """
    model = context.model
    parts, tokens = [], 0
    block: list[str] = []

    def embed(chosen: Sequence[str]) -> None:
        nonlocal tokens
        cut = [model.encode(text)[: min(DENSE_TOKENS, model.context - 1)] for text in chosen]
        tokens += sum(len(ids) + 1 for ids in cut)
        parts.append(model.hidden_mean([model.decode(ids) for ids in cut]).double().cpu().numpy())

    embed(queries)
    for text in texts:
        block.append(text)
        if len(block) == DENSE_DOCUMENTS:
            embed(block)
            block = []
    if block:
        embed(block)
    if len(parts) == 1:
        return np.zeros((0, len(queries))), tokens
    documents = np.concatenate(parts[1:])
    mean = documents.mean(0)

    def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        centred = rows - mean
        return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))

    return np.asarray(unit(documents) @ unit(parts[0]).T), tokens


def nearest(scores: NDArray[np.float64], digests: Sequence[str], count: int) -> list[int]:
    """Rows of the `count` best documents by their best query, in row order; ties go to the lower digest."""
    best = scores.max(1)
    order = sorted(range(len(best)), key=lambda row: (-best[row], digests[row]))
    return sorted(order[:count])


class SubdomainText:
    """The nearest documents of a base dataset."""

    def __init__(self, options: SubdomainOptions, context: DatasetContext) -> None:
        self._options, self._context = options, context
        self._base: SplitDataset = context.dataset(options.base)
        self._chosen: dict[Split, set[str]] = {}
        self._counts: dict[Split, int] = {}

    def documents(self, split: Split) -> Iterator[Document]:
        """The nearest of one part, in the base's order. Ranking is work, and done in the part that is read alone."""
        chosen = self._choose(split)
        seen: set[str] = set()
        for document in self._base.documents(split):
            if document.digest in chosen and document.digest not in seen:
                seen.add(document.digest)
                yield document

    def manifest(self) -> Mapping[str, Any]:
        """Counts, and the base's own facts."""
        chosen = {split: len(found) for split, found in sorted(self._chosen.items())}
        return {
            "base": self._options.base,
            "base_manifest": dict(self._base.manifest()),
            "chosen": chosen,
            "of": dict(sorted(self._counts.items())),
        }

    def _choose(self, split: Split) -> set[str]:
        if split not in self._chosen:
            digests = self._digests(split)
            share = (
                self._options.top
                if isinstance(self._options.top, float)
                else self._options.top / max(1, len(self._digests("train")))
            )
            scores = self._scores(split, len(digests))
            # a document that shares no word with any query is not near it, however few there are
            possible = (
                len(digests) if self._options.retriever == "dense" else int((scores.max(1, initial=0.0) > 0).sum())
            )
            count = min(possible, math.ceil(round(share * len(digests), 9)))
            if count == 0:
                raise SuiteError(
                    f"dataset '{self._options.base}': none of the {len(digests)} {split} documents holds a word of the "
                    f"queries {', '.join(map(repr, self._options.queries))}. "
                    "Use other queries, or retriever: dense."
                )
            self._chosen[split] = {digests[row] for row in nearest(scores, digests, count)}
            self._counts[split] = len(digests)
        return self._chosen[split]

    def _digests(self, split: Split) -> list[str]:
        return list(dict.fromkeys(document.digest for document in self._base.documents(split)))

    def _texts(self, split: Split) -> Iterator[str]:
        seen: set[str] = set()
        for document in self._base.documents(split):
            if document.digest not in seen:
                seen.add(document.digest)
                yield document.text

    def _scores(self, split: Split, n_documents: int) -> NDArray[np.float64]:
        queries, meter = self._options.queries, self._context.meter
        with self._context.progress(n_documents, f"{self._options.retriever} {split}") as bar:

            def watched() -> Iterator[str]:
                for text in self._texts(split):
                    yield text
                    bar.update(1)

            if self._options.retriever == "bm25":
                scores = bm25(watched(), queries)
                # one multiply-add chain of six operations for each document and query word; no model reads anything
                meter.add(flops=6 * n_documents * len({word for query in queries for word in words(query)}))
                return scores
            kept = self._context.keep(f"dense-{split}.npz", lambda: _packed(*dense(watched(), queries, self._context)))
            with np.load(io.BytesIO(kept)) as stored:
                scores, tokens = stored["scores"], int(stored["tokens"])
            meter.add(tokens=tokens, flops=tokens * self._context.model.forward_flops_per_token)
            return np.asarray(scores)


def _packed(scores: NDArray[np.float64], tokens: int) -> bytes:
    file = io.BytesIO()
    np.savez(file, scores=scores, tokens=np.array(tokens))
    return file.getvalue()


def open_subdomain(options: SubdomainOptions, context: DatasetContext) -> SubdomainText:
    """Opens the base; ranks when documents are first asked for."""
    return SubdomainText(options, context)
