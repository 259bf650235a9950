"""How documents become windows of tokens: one policy, part of a dataset's digest and printed in every record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SPECIAL = "left out of activations in training and scoring; they keep their own activation under splicing"

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "text": {
        "held_out": "one document in five, by SHA-256 of the text without case, Unicode form, characters that print "
        "nothing, and kinds of quotes, dashes and ellipses",
        "bos": "first token of every window",
        "separator": "bos between documents",
        "packing": "documents joined, cut into windows of the context length; the last short window is dropped; "
        "a document of over 1,048,576 characters is tokenised in pieces, cut at blanks",
        "order": "documents shuffled by the seed, within 64,000,000 characters",
        "special_tokens": _SPECIAL,
    },
    "generated": {
        "bos": "first token of every sequence",
        "separator": "none",
        "packing": "one sample a sequence, from BOS to EOS or the context length",
        "order": "as sampled",
        "special_tokens": _SPECIAL,
    },
}
"""By dataset kind; the other kinds have no tokens. Losses count where neither a token nor the next one is special."""
