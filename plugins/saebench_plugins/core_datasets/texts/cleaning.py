"""Characters that are none, replaced and counted; texts of special tokens, which part documents or are counted."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from saebench.api import UNSEEN

REPLACEMENT = "\ufffd"
_BAD = re.compile("[\0\ud800-\udfff]")

_TEXT = r"(?:end|begin|start)[_\u2581]?of[_\u2581]?(?:text|sentence|sent|document|doc|story|file)|eos|bos|eot|eod"
_BAR = r"[|\uff5c]"
_PARTS = re.compile(rf"<{_BAR}(?:{_TEXT}){_BAR}>|<(?:{_TEXT})>", re.IGNORECASE)
"""Part documents also at an end of a line."""
MARKER = re.compile(
    rf"{_PARTS.pattern}|<{_BAR}/?(?:s|pad|sep|cls|end|eot_id|im_start|im_end|end_of_turn|end[_\u2581]of[_\u2581]\w+){_BAR}>|"
    r"</?s>|<pad>|<(?:end|start)_of_turn>|\[(?:EOS|BOS|EOT|EOD|SEP|CLS|PAD)\]",
    re.IGNORECASE,
)
"""Texts that tokenizers give to the tokens that end, begin or part documents."""
_BLANKS = f"[{UNSEEN}]*"
_ONLY = re.compile(rf"{_BLANKS}(?:(?:{MARKER.pattern}){_BLANKS})+", re.IGNORECASE)
_FIRST = re.compile(rf"{_BLANKS}(?:(?:{_PARTS.pattern}){_BLANKS})+", re.IGNORECASE)
_BETWEEN = re.compile(_BLANKS)


@dataclass
class Counts:
    """What was found in the documents read so far.

    Attributes:
        documents, characters: Of documents with any text.
        empty: Rows that are null or hold no text.
        replaced_documents, replaced_characters: With lone surrogates, NUL or invalid UTF-8, which became U+FFFD.
        special_token_documents: Hold the text of a special token.
        markers: Lines of a txt that part documents by the text of a special token.
    """

    documents: int = 0
    characters: int = 0
    empty: int = 0
    replaced_documents: int = 0
    replaced_characters: int = 0
    special_token_documents: int = 0
    markers: int = 0

    def clean(self, text: str) -> str:
        """The text with U+FFFD for each character that is none; both are counted."""
        text, n = _BAD.subn(REPLACEMENT, text)
        self.documents += 1
        self.characters += len(text)
        self.replaced_documents += n > 0
        self.replaced_characters += n
        self.special_token_documents += MARKER.search(text) is not None
        return text

    def to_json(self) -> dict[str, int]:
        """All counts."""
        return asdict(self)

    def remarks(self, path: str) -> list[str]:
        """What a reader should know."""
        found = []
        if self.replaced_characters:
            found.append(
                f"{path}: lone surrogates, NUL or invalid UTF-8 in {self.replaced_documents:,} of {self.documents:,} "
                "documents "
                f"({self.replaced_characters:,} characters). Each becomes U+FFFD."
            )
        if self.special_token_documents:
            found.append(
                f"{path}: {self.special_token_documents:,} of {self.documents:,} documents hold the text of a special "
                "token, such as <|endoftext|> or </s>. "
                "It is read as text. Take it out, or in a txt put it on a line of its own, where it parts documents."
            )
        if self.markers:
            found.append(
                f"{path}: {self.markers:,} lines with the text of a special token part the documents; blank lines do "
                "not."
            )
        return found


def cut_at_markers(line: str) -> tuple[bool, str, bool]:
    """Whether a marker begins the line, the line without it, and whether a marker ends it. A line that is only a marker
    is empty."""
    if "<" not in line and "[" not in line:
        return False, line, False
    if _ONLY.fullmatch(line):
        return True, "", True
    first, stop = _FIRST.match(line), len(line)
    # one pass over the line: a pattern that looks for the end itself takes hours on long runs of blanks or markers
    for start, end in reversed([found.span() for found in _PARTS.finditer(line)]):
        if _BETWEEN.fullmatch(line, end, stop) is None:
            break
        stop = start
    text = line[first.end() if first else 0 : stop]
    return first is not None, text if stop == len(line) else text.rstrip(), stop < len(line)
