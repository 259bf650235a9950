"""Dataset `subdomain`: retrieval by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saebench.api import Document, SuiteError, split_of
from saebench_plugins.core_datasets.plugin import SubdomainOptions
from saebench_plugins.core_datasets.subdomain import bm25, nearest, open_subdomain, words


class Base:
    def __init__(self, texts):
        self.all = [Document(text) for text in texts]

    def documents(self, split):
        return (document for document in self.all if split_of(document.digest) == split)

    def manifest(self):
        return {"n": len(self.all)}


class Model:
    """Embeds a text by the share of each vowel."""

    forward_flops_per_token = 10
    context = 64

    def encode(self, text):
        return [ord(letter) for letter in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def hidden_mean(self, texts):
        return torch.tensor([[text.count(vowel) / max(1, len(text)) for vowel in "aeiou"] for text in texts])


def test_words_lose_plural_endings():
    assert words("Sockets, and the Queries of classes; glass bus (NETWORKS)") == [
        "socket", "and", "the", "query", "of", "classe", "glass", "bus", "network",
    ]  # fmt: skip
    assert words("classes") == words("classe")


def test_bm25_by_hand():
    texts = ["cat cat dog", "dog bird", "fish fish fish fish"]
    scores = bm25(texts, ["cat", "cats dog dog"])
    mean = 3.0

    def term(tf, df, length):
        idf = math.log(1 + (3 - df + 0.5) / (df + 0.5))
        return idf * tf * 2.2 / (tf + 1.2 * (0.25 + 0.75 * length / mean))

    cat, dog0, dog1 = term(2, 1, 3), term(1, 2, 3), term(1, 2, 2)
    assert np.allclose(scores, [[cat, cat + dog0], [0, dog1], [0, 0]])


def test_bm25_prefers_what_is_about_the_query():
    texts = [
        "A socket is an endpoint of a network connection.",
        "Matrices are multiplied row by column.",
        "The network sends packets through a socket.",
    ]
    scores = bm25(texts, ["sockets and network protocols"])[:, 0]
    assert scores[1] < min(scores[0], scores[2])
    assert bm25([], ["x"]).shape == (0, 1)


def test_ties_go_to_the_lower_digest():
    scores = np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 1.0], [0.5, 0.5]])
    assert nearest(scores, ["a", "d", "c", "b"], 2) == [1, 2]
    assert nearest(scores, ["a", "d", "c", "b"], 1) == [2]  # c before d


TEXTS = [f"number {i} {'network socket' if i % 5 == 0 else 'garden flower'} text" for i in range(100)]


def chosen(options, make_context, **parts):
    context = make_context(datasets={"base": Base(TEXTS)}, **parts)
    opened = open_subdomain(options, context)
    return (
        opened,
        context,
        {split: [document.text for document in opened.documents(split)] for split in ("train", "held-out")},
    )


def test_ranked_inside_each_part(make_context):
    options = SubdomainOptions("base", ("network sockets",), top=0.1)
    opened, context, found = chosen(options, make_context)
    base = Base(TEXTS)
    for split in ("train", "held-out"):
        total = sum(1 for _ in base.documents(split))
        near = sum("network" in document.text for document in base.documents(split))
        assert len(found[split]) == min(near, math.ceil(0.1 * total))
        assert all("network" in text for text in found[split])
    assert context.meter.tokens == 0
    assert context.meter.flops == 6 * 100 * 2
    assert opened.manifest()["chosen"]["train"] == len(found["train"])
    assert opened.manifest()["base_manifest"] == {"n": 100}


def test_a_count_is_of_training_documents_and_held_out_takes_the_same_share(make_context):
    _, _, found = chosen(SubdomainOptions("base", ("garden",), top=16), make_context)
    n_train = sum(1 for _ in Base(TEXTS).documents("train"))
    assert len(found["train"]) == 16
    assert len(found["held-out"]) == math.ceil(16 / n_train * (100 - n_train))


def test_documents_that_share_no_word_are_never_near(make_context):
    _, _, found = chosen(SubdomainOptions("base", ("network",), top=1.0), make_context)
    assert all("network" in text for text in found["train"])
    with pytest.raises(SuiteError, match="holds a word of the queries 'zebra'"):
        chosen(SubdomainOptions("base", ("zebra",)), make_context)


def test_dense_retrieval_is_metered_and_kept(make_context):
    options = SubdomainOptions("base", ("ooo eee network socket",), retriever="dense", top=0.2)
    _, context, found = chosen(options, make_context, model=Model())
    assert sum("network" in text for text in found["train"]) > 0.9 * len(found["train"])
    assert context.meter.tokens > 0
    assert context.meter.flops == 10 * context.meter.tokens

    class Silent(Model):
        def hidden_mean(self, texts):
            raise AssertionError("embedded again")

    _, again, same = chosen(options, make_context, model=Silent())
    assert same == found
    assert (again.meter.tokens, again.meter.flops) == (context.meter.tokens, context.meter.flops)
