"""Packing and shuffling, by hand."""

from __future__ import annotations

import torch

from saebench.activations import tokens
from saebench.activations.sources.validation_split import part_of
from saebench.activations.tokens import pack, pack_numbered, sequence_digest, shuffled, token_policy, tokenised
from saebench.api import Document
from saebench.api.splits import split_of
from saebench.base.canonical import digest
from saebench.base.random import derive_seed, generator
from saebench.cells.cell import DATA_VERSION


def test_packing_by_hand():
    documents = [[11, 12, 13], [], [21, 22], [31, 32, 33, 34]]
    windows = list(pack(documents, context=4, bos_id=1))
    # the stream is 11 12 13 1 21 22 1 31 32 33 34; what does not fill a window is dropped
    assert windows == [[1, 11, 12, 13], [1, 1, 21, 22], [1, 1, 31, 32]]


def test_the_order_of_tokens_is_what_stored_ids_were_made_with():
    """Golden: a change of this changes what every cell trains on. Raise DATA_VERSION with it: it decides ids."""
    documents = [Document(f"document {i} " + "x" * (i % 5)) for i in range(40)]
    parts = [[text for text in documents if split_of(text.digest) == split] for split in ("train", "held-out")]
    parts += [[text for text in parts[1] if part_of(text.digest) == part] for part in ("validation", "test")]
    texts = [[list(text.text.encode()) for text in shuffled(part, 3)] for part in parts]
    rows = torch.randperm(50, generator=generator(3, "block", 1, 2)).tolist()
    made = [[list(pack(part, context=16, bos_id=0)) for part in texts], rows]
    assert (DATA_VERSION, digest(made)[:16]) == (1, "f7b1f7cc4ff4a684")


def test_too_little_for_a_window_gives_none():
    assert list(pack([[1, 2]], context=4, bos_id=0)) == []


def test_packing_does_not_depend_on_how_documents_come():
    documents = [[i] * (i % 7) for i in range(50)]
    assert list(pack(iter(documents), context=8, bos_id=0)) == list(pack(documents, context=8, bos_id=0))


def test_shuffling_keeps_documents_and_depends_on_the_seed_alone():
    documents = [Document(f"text {i}") for i in range(40)]
    one, two = list(shuffled(documents, 1)), list(shuffled(documents, 2))
    assert one != two != documents
    assert set(one) == set(documents)
    assert list(shuffled(list(reversed(documents)), 1)) == one
    assert list(shuffled(documents, 1, characters=1)) == documents  # blocks of one


def test_tokenised_notes_only_what_was_read():
    documents = [Document(f"d{i}") for i in range(600)]
    numbers: dict[str, int] = {}
    read = tokenised(documents, lambda texts: [[len(text)] for text in texts], numbers)
    assert next(read) == (0, [2])
    assert numbers == {documents[0].digest: 0}
    assert [number for number, _ in read] == list(range(1, 600))
    assert len(numbers) == 600


def test_copies_of_a_document_have_one_number():
    documents = [Document(text) for text in ("one", "two", "one", "three")]
    read = tokenised(documents, lambda texts: [[len(text)] for text in texts], {})
    assert [number for number, _ in read] == [0, 1, 0, 2]


def test_windows_know_the_documents_of_their_tokens():
    documents = [(0, [11, 12, 13]), (1, []), (2, [21, 22]), (0, [31, 32, 33, 34])]
    windows = list(pack_numbered(documents, context=4, bos_id=1))
    assert windows == [
        ([1, 11, 12, 13], [-1, 0, 0, 0]),
        ([1, 1, 21, 22], [-1, -1, 2, 2]),
        ([1, 1, 31, 32], [-1, -1, 0, 0]),
    ]
    # one after the other: a corpus need not fit into memory
    read = iter(documents * 1000)
    next(pack_numbered(read, context=4, bos_id=1))
    assert len(list(read)) >= 3990


def test_a_long_document_is_tokenised_in_pieces_cut_at_blanks(monkeypatch):
    monkeypatch.setattr(tokens, "PIECE_CHARACTERS", 10)
    texts = ["short", "one two three four five", "x" * 25, "short too"]
    asked: list[str] = []

    def encode_many(pieces):
        asked.extend(pieces)
        return [[ord(letter) for letter in piece] for piece in pieces]

    numbers: dict[str, int] = {}
    documents = [Document(text) for text in texts]
    ids = list(tokenised(documents, encode_many, numbers))
    assert ["".join(map(chr, row)) for _, row in ids] == texts
    assert asked == ["short", "one two", " three", " four five", "x" * 10, "x" * 10, "x" * 5, "short too"]
    assert list(numbers) == [document.digest for document in documents]


def test_policies_differ_by_kind_and_ids():
    arguments = {"context": 8, "bos_id": 1, "eos_id": 2, "special_ids": {2, 1}}
    assert token_policy("text", **arguments)["special_ids"] == [1, 2]
    assert token_policy("text", **arguments) != token_policy("generated", **arguments)


def test_seeds_are_derived_from_what_they_are_for():
    assert derive_seed(0, "epoch", 1) != derive_seed(0, "epoch", 2) != derive_seed(1, "epoch", 2)
    assert 0 <= derive_seed("x") < 2**63
    assert torch.equal(torch.rand(3, generator=generator(5, "a")), torch.rand(3, generator=generator(5, "a")))


def test_a_sequence_digest_knows_the_ids():
    assert (
        sequence_digest(torch.tensor([1, 2]))
        == sequence_digest(torch.tensor([1, 2]))
        != sequence_digest(torch.tensor([2, 1]))
    )
