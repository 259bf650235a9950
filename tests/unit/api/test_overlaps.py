"""Near-duplicates across a split, against counts made by hand."""

from __future__ import annotations

import random

import pytest

from saebench.api import Document, overlap, overlaps

draws = random.Random(0)


def words(n):
    return [f"w{draws.randrange(10**6)}" for _ in range(n)]


def documents(*texts):
    return [Document(" ".join(text)) for text in texts]


def test_a_reworded_copy_counts_and_another_text_does_not():
    base, other = words(100), words(100)
    reworded = [word if number % 20 else "changed" for number, word in enumerate(base)]
    found = overlap(documents(base, words(100)), documents(reworded, other))
    # one word in twenty is another: 16 of 20 runs of five words are the base's, but for the ends
    assert (found.held_out_documents, found.train_documents, found.near_duplicates) == (2, 2, 1)
    shared = sum(not any(number % 20 == 0 for number in range(start, start + 5)) for start in range(96))
    assert found.shared_runs == pytest.approx(shared / 192, abs=1e-6)


def test_case_punctuation_and_line_ends_do_not_hide_a_copy():
    base = words(50)
    assert overlap(documents(base), [Document(",\n".join(base).upper() + " And more.")]).near_duplicates == 1


def test_a_document_put_together_from_several_counts():
    a, b = words(60), words(60)
    assert overlap(documents(a, b), documents(a[:30] + b[:30])).near_duplicates == 1


def test_a_passage_in_all_documents_is_a_number_and_a_line():
    passage = words(40)
    found = overlap(
        documents(*(passage + words(60) for _ in range(9))), documents(*(passage + words(60) for _ in range(3)))
    )
    assert found.near_duplicates == 0
    assert found.shared_runs == pytest.approx(36 / 96, abs=1e-6)
    assert "38% of the runs of all held-out documents" in found.remark("here")
    assert overlap(documents(words(50)), documents(words(50))).remark("here") is None


def test_short_documents_are_compared_as_a_whole():
    assert overlap(documents(["one", "two"]), documents(["One", "two!"], ["two", "one"])).near_duplicates == 1


def test_it_looks_at_a_bounded_sample(monkeypatch):
    monkeypatch.setattr(overlaps, "MAX_HELD_OUT", 3)
    monkeypatch.setattr(overlaps, "MAX_TRAIN_CHARACTERS", 1000)
    texts = [words(40) for _ in range(20)]
    found = overlap(documents(*texts), documents(*(words(40) for _ in range(20))))
    assert found.held_out_documents == 3
    assert found.train_documents < 10


def test_nothing_is_no_duplicate():
    found = overlap([], [])
    assert (found.near_duplicates, found.shared_runs, found.remark("here")) == (0, 0.0, None)
