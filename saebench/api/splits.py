"""Train and held-out, told apart by the document itself, so that every dataset and every run agree."""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from functools import cache
from typing import Literal

Split = Literal["train", "held-out"]

HELD_OUT_ONE_IN = 5
_MOST_MARKS = 30
"""Of Unicode's stream-safe text format (UAX #15)."""


@cache
def _ignored() -> dict[int, None]:
    """What does not tell documents apart: blanks, control and format characters (BOM, zero-width blanks), variation selectors."""

    def is_ignored(code: int) -> bool:
        return unicodedata.category(chr(code)) in ("Cc", "Cf", "Zs", "Zl", "Zp") or 0xFE00 <= code <= 0xFE0F

    planes = (*range(0x10000), *range(0xE0000, 0xE0200))  # the planes between hold next to none of them
    return {code: None for code in planes if is_ignored(code)}


@cache
def _piled() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """More marks over one letter than any language writes; first a pattern that is quick, and finds some other characters too."""
    marks = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.combining(chr(code))]
    quick = "".join(mark for mark in marks if mark < "\U00010000") + "\U00010000-\U0010ffff"
    first, second = (re.compile(f"[{each}][{each}]{{{_MOST_MARKS - 1},}}") for each in (quick, "".join(marks)))
    return first, second


def _levelled(text: str) -> str:
    """The text with at most `_MOST_MARKS` marks in a row: putting n of them in order takes n² steps."""
    quick, exact = _piled()
    return quick.sub(lambda run: exact.sub(lambda marks: marks[0][:_MOST_MARKS], run[0]), text)


def folded(text: str) -> str:
    """The text without case, Unicode form (NFKC) and blanks: equal for documents that are copies of each other.

    Empty where there is no text at all.
    """
    if text.isascii():
        return text.lower().translate(_ignored())
    # folding case can leave the normal form, hence the second NFKC (Unicode 3.13, D147)
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _levelled(text)).casefold())
    return text.translate(_ignored())


def document_digest(text: str) -> str:
    """SHA-256 (hex) of the folded text: the document's identity across datasets. Copies share it; see `folded`."""
    return hashlib.sha256(folded(text).encode("utf-8", "surrogatepass")).hexdigest()


def split_of(digest: str) -> Split:
    """`held-out` for one document in five, by the first 32 bits of its digest."""
    return "held-out" if int(digest[:8], 16) % HELD_OUT_ONE_IN == 0 else "train"


def is_held_out(text: str) -> bool:
    """True when the document belongs to the held-out part."""
    return split_of(document_digest(text)) == "held-out"
