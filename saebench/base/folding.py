"""What does not tell two documents apart: case, Unicode form, characters that print nothing, kinds of quotes."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache

FORMAT = (
    "\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001-\U000e007f"
)
"""Inside of a pattern's brackets: Unicode 16's controls beyond ASCII, format characters, separators, half characters.
Written out, so that every Python knows the same."""
UNSEEN = FORMAT + (
    "\0-\x20\xa0\u034f\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200a\u202f\u205f\u2065\u2800\u3000\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\ufffc\ufffd\U00013441\U00013442\U00016fe4\U0001d159\U000e0000-\U000e0fff"
)
"""The same with ASCII's controls, blanks, `Default_Ignorable_Code_Point`s, blank glyphs (braille, fillers of scripts),
and signs for a character that is lost."""
_PRINTS = re.compile(f"[^{UNSEEN}]")

_QUOTES = (
    "'\"`\u00ab\u00b4\u00bb\u02b9-\u02bf\u02c8\u02ca\u02cb\u02dd\u05f3\u05f4\u1ffd\u2018-\u201f\u2032-\u2037\u2039\u203a\u275b-\u2760"
    "\u276e\u276f\u2e42\u300c-\u300f\u301d-\u301f\ua78b\ua78c\ufe41-\ufe44\uff02\uff07\uff40\uff62\uff63\U0001f676-\U0001f678"
)
_DASHES = (
    "\u02d7\u058a\u05be\u1400\u1806\u2010-\u2015\u2043\u2053\u207b\u208b\u2212\u2796\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u2e5d"
    "\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d\U00010d6e\U00010ead-"
)
_SET_ALIKE = {"'": _QUOTES, "-": _DASHES, "...": "\u22ef", "/": "\u2044\u2215", "i": "\u0131"}
"""The last: both are I in upper case."""
_SPACED = (" \u0301", " \u030b")
"""What NFKC makes of an acute accent on its own, as people type it for an apostrophe."""
_MOST_MARKS = 30
"""Of Unicode's stream-safe text format (UAX #15)."""


@cache
def _table() -> dict[int, str | None]:
    """For `str.translate`: nothing for what prints nothing, one text for all that are set alike."""
    table: dict[int, str | None] = dict.fromkeys(_codes(UNSEEN))
    for shown, alike in _SET_ALIKE.items():
        table |= dict.fromkeys(_codes(alike), shown)
    return table


@cache
def _odd() -> re.Pattern[str]:
    """What the table changes, and, so that it is quick, all beyond the first 65,536 characters."""
    changed = "".join(chr(code) for code, shown in _table().items() if shown != chr(code) and code < 0x10000)
    return re.compile(f"[{re.escape(changed)}\U00010000-\U0010ffff]")


def _translated(odd: re.Match[str]) -> str:
    return _table().get(ord(odd[0]), odd[0]) or ""


def _codes(ranges: str) -> list[int]:
    """Of the inside of a pattern's brackets."""
    parts = re.findall(r"(?s)(.)(?:-(.))?", ranges)
    return [code for first, last in parts for code in range(ord(first), ord(last or first) + 1)]


@cache
def _piled() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """More marks over one letter than any language writes; before it a faster pattern that finds other ones too."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    quick = "".join(mark for mark in marks if mark < "\U00010000") + "\U00010000-\U0010ffff"
    first, second = (re.compile(f"[{each}][{each}]{{{_MOST_MARKS - 1},}}") for each in (quick, "".join(marks)))
    return first, second


def _levelled(text: str) -> str:
    """The text with at most `_MOST_MARKS` marks in a row: putting n of them in order takes n² steps."""
    quick, exact = _piled()
    return quick.sub(lambda run: exact.sub(lambda marks: marks[0][:_MOST_MARKS], run[0]), text)


def _plain(text: str) -> str:
    """Without what prints nothing; every run of quotes is one `'`, every run of dashes one `-`."""
    for accent in _SPACED:
        text = text.replace(accent, "'")
    if text.isascii():
        text = text.translate(_table())
    else:  # there a translation is slow; once blanks are out, next to nothing is left to translate
        text = _odd().sub(_translated, "".join(text.split()))
    for mark in ("'", "-"):
        while mark * 2 in text:
            text = text.replace(mark * 2, mark)
    return text


def folded(text: str) -> str:
    """What makes a document: equal for copies that differ in case, Unicode form, blanks, unseen characters, or in
    how quotes, dashes and ellipses are set. `core_datasets/README.md` says it in full.

    Empty where nothing is printed at all.
    """
    before = None
    while text != before:  # blanks part a letter from its marks, NFKD brings blanks, and folding case can leave NFKD
        before, text = text, _plain(text)
        if text.isascii():
            return text.lower()
        text = unicodedata.normalize("NFKD", _levelled(text)).casefold()
    return text


def is_blank(text: str) -> bool:
    """True where nothing is printed: no text, blanks, or characters that are not visible."""
    return _PRINTS.search(text) is None
