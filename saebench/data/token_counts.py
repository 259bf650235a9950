"""How many tokens a text is, asked at plan time: a tokenizer without its model."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

PIECE = 2_000
"""Characters that are tokenised at a time: far under what any tokenizer warns about."""


def tokens_in(folder: Path, text: str) -> int | None:
    """Tokens of a text, without special ones; None where the folder has no usable tokenizer (the run says why)."""
    tokenizer = _tokenizer(folder)
    if tokenizer is None:
        return None
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return sum(map(len, tokenizer(pieces, add_special_tokens=False, verbose=False)["input_ids"]))


@lru_cache(maxsize=8)
def _tokenizer(folder: Path) -> Any | None:
    from transformers import AutoTokenizer

    from saebench.data.models import quiet

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError):
        return None
