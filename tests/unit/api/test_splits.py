"""What makes two documents one, and which side they fall on."""

from __future__ import annotations

import unicodedata

import pytest

from saebench.api import Document, document_digest, folded, split_of

COPIES = {
    "blanks at the ends": lambda text: f"  {text}\n\n",
    "runs of blanks": lambda text: text.replace(" ", "  \t"),
    "no-break and wide blanks": lambda text: text.replace(" ", "\u00a0").replace("\n", "\u3000"),
    "line ends": lambda text: text.replace("\n", "\r\n"),
    "line separators": lambda text: text.replace("\n", "\u2028"),
    "a byte order mark": lambda text: f"\ufeff{text}",
    "zero-width characters": lambda text: text.replace("e", "e\u200b").replace("a", "\u2060a\u00ad"),
    "NUL": lambda text: text.replace(" ", " \0"),
    "case": str.upper,
    "title case": str.title,
    "decomposed letters": lambda text: unicodedata.normalize("NFD", text),
    "compatible letters": lambda text: text.replace("fi", "\ufb01").replace("1", "\uff11"),
    "variation selectors": lambda text: text.replace("\u2764", "\u2764\ufe0f"),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_fall_on_one_side(copied):
    for number in range(60):  # a rule that looks at every letter would part one pair in three
        text = f"Stra\u00dfe {number} finds the caf\u00e9 \u2764 of 1923.\nA second line."
        assert document_digest(copied(text)) == document_digest(text)
        assert Document(copied(text)).digest == Document(text).digest


def test_other_words_are_another_document():
    assert folded("A cat.") != folded("A cat!")
    assert document_digest("one two") != document_digest("two one")


def test_text_without_any_text_is_empty():
    assert folded(" \n\t\u200b\ufeff\u2028\0") == ""


def test_one_in_five_is_held_out():
    held_out = sum(split_of(document_digest(f"document {number}")) == "held-out" for number in range(20_000))
    assert 0.19 < held_out / 20_000 < 0.21


@pytest.mark.parametrize("marks", ["\u0301\u0316", "\u0345\U0001e8d0", "\U0001d165\U0001d17b"])
def test_half_a_million_marks_over_a_letter_are_no_work(marks: str) -> None:
    assert folded("a" + marks * 250_000) == folded("a" + marks * 15)  # in order n² steps: hours


def test_marks_that_a_language_writes_all_count() -> None:
    assert folded("a" + "\u0301" * 29) != folded("a" + "\u0301" * 28)
    hieroglyphs = "".join(chr(0x13000 + i) for i in range(100))
    assert folded(hieroglyphs) == hieroglyphs
