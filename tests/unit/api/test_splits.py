"""What makes two documents one, and which side they fall on."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from saebench.api import Document, document_digest, is_blank, split_of
from saebench.base.folding import folded

UNSEEN_CATEGORIES = ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp")
COPIES = {
    "blanks at the ends": lambda text: f"  {text}\n\n",
    "runs of blanks": lambda text: text.replace(" ", "  \t"),
    "no-break and wide blanks": lambda text: text.replace(" ", "\u00a0").replace("\n", "\u3000"),
    "line ends": lambda text: text.replace("\n", "\r\n"),
    "line separators": lambda text: text.replace("\n", "\u2028"),
    "a byte order mark": lambda text: f"\ufeff{text}",
    "zero-width characters": lambda text: text.replace("e", "e\u200b").replace("a", "\u2060a\u00ad"),
    "NUL": lambda text: text.replace(" ", " \0"),
    "a lost character": lambda text: text.replace(" ", " \ufffd"),
    "braille blanks": lambda text: text.replace(" ", "\u2800"),
    "Hangul fillers": lambda text: text.replace("e", "\u3164e\u115f\u1160\uffa0"),
    "joiners inside of decomposed letters": lambda text: unicodedata.normalize("NFD", text).replace(
        "\u0301", "\u034f\u0301"
    ),
    "zero-width blanks inside of decomposed letters": lambda text: unicodedata.normalize("NFD", text).replace(
        "\u0301", "\u200b\u0301"
    ),
    "Mongolian selectors": lambda text: text.replace("a", "a\u180b\u180e\u180f"),
    "selectors of other planes": lambda text: text.replace("a", "a\U000e0100\U000e0001\U000e0fff"),
    "musical and Egyptian controls": lambda text: text.replace("a", "a\U0001d173\U00013430\U0001bca0"),
    "case": str.upper,
    "title case": str.title,
    "decomposed letters": lambda text: unicodedata.normalize("NFD", text),
    "compatible letters": lambda text: text.replace("fi", "\ufb01").replace("1", "\uff11"),
    "curly quotes": lambda text: text.replace('"', "\u201c", 1).replace('"', "\u201d").replace("'", "\u2019"),
    "low and angle quotes": lambda text: text.replace('"', "\u201e", 1).replace('"', "\u00bb"),
    "quotes of TeX": lambda text: text.replace('"', "``", 1).replace('"', "''").replace("'", "`"),
    "acute accents for apostrophes": lambda text: text.replace("'", "\u00b4"),
    "full-width quotes": lambda text: text.replace('"', "\uff02").replace("'", "\uff07"),
    "primes": lambda text: text.replace('"', "\u2033").replace("'", "\u2032"),
    "an en dash": lambda text: text.replace(" - ", " \u2013 "),
    "an em dash without blanks": lambda text: text.replace(" - ", "\u2014"),
    "dashes of a typewriter": lambda text: text.replace(" - ", " --- "),
    "minus and other hyphens": lambda text: text.replace(" - ", " \u2212 ").replace("t-b", "t\u2011b"),
    "the ellipsis": lambda text: text.replace("...", "\u2026"),
    "an ellipsis with blanks": lambda text: text.replace("...", ". . ."),
    "a fraction": lambda text: text.replace("1/2", "\u00bd"),
    "a capital without its dot": lambda text: text.replace("i", "\u0131"),
    "variation selectors": lambda text: text.replace("\u2764", "\u2764\ufe0f"),
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_fall_on_one_side(copied):
    for number in range(60):  # a rule that looks at every letter would part one pair in three
        text = (
            f"Stra\u00dfe {number} finds the caf\u00e9 \u2764 of 1923.\n"
            'A second line: "It\'s a flat-bed - 1/2 of them..."\nThird \u00e9.'
        )
        assert number or copied(text) != text
        assert document_digest(copied(text)) == document_digest(text)
        assert Document(copied(text)).digest == Document(text).digest


def test_a_form_that_is_folded_is_folded_once() -> None:
    every = map(chr, range(sys.maxunicode + 1))
    for char in (char for char in every if unicodedata.decomposition(char) or char.casefold() != char):
        once = folded(char)
        assert folded(once) == folded(unicodedata.normalize("NFKD", char)) == folded(char.upper()) == once


def test_what_prints_nothing_is_known_whatever_the_version_of_unicode() -> None:
    unseen = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)) in UNSEEN_CATEGORIES]
    assert [char for char in unseen if folded(char) or not is_blank(char)] == []
    assert is_blank("")
    assert not is_blank("\u200b.\u200b")


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
