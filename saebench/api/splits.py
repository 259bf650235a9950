"""Train and held-out, told apart by the document itself, so that every dataset and every run agree."""

from __future__ import annotations

import hashlib
from typing import Literal

from saebench.base.folding import folded

Split = Literal["train", "held-out"]

HELD_OUT_ONE_IN = 5


def document_digest(text: str) -> str:
    """SHA-256 (hex) of the folded text: the document's identity across datasets. Copies share it; see `folded`."""
    return hashlib.sha256(folded(text).encode("utf-8", "surrogatepass")).hexdigest()


def split_of(digest: str) -> Split:
    """`held-out` for one document in five, by the first 32 bits of its digest."""
    return "held-out" if int(digest[:8], 16) % HELD_OUT_ONE_IN == 0 else "train"


def is_held_out(text: str) -> bool:
    """True when the document belongs to the held-out part."""
    return split_of(document_digest(text)) == "held-out"
