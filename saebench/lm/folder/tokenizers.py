"""Tokenizers of model folders, and whether their ids fit the model."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from saebench.api.errors import SuiteError
from saebench.lm import hf
from saebench.lm.folder.blame import tokenizer_fault
from saebench.lm.folder.model_config import reason

PIECE = 2_000
"""Characters of a sample that are tokenised at a time."""


def read_tokenizer(folder: Path, model_id: str, *, trust: bool = False) -> Any:
    """The tokenizer of a folder. Code that a model brings along is run with `trust` alone.

    Raises:
        SuiteError: It cannot be loaded, with the package that is missing where that is the cause.
    """
    try:
        return hf.tokenizer_in(folder, trust=trust)
    except Exception as error:
        fault = tokenizer_fault(folder)
        if fault is not None:
            raise SuiteError(
                f"model '{model_id}': its tokenizer cannot be loaded: {fault}. "
                "Copy it again, or save it with `save_pretrained`."
            ) from error
        cause = reason(error)
        # transformers tries other packages then, and names the last one
        if any(folder.glob("*.model")) and importlib.util.find_spec("sentencepiece") is None:
            cause = "it needs the package sentencepiece: pip install sentencepiece"
        raise SuiteError(
            f"model '{model_id}': its tokenizer ({_found(folder)}) cannot be loaded ({cause}). "
            "Copy or save its files again."
        ) from error


def _found(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*token*") if path.is_file())
    return ", ".join(names[:4]) or "files of other names"


@lru_cache(maxsize=8)
def _kept(folder: Path, trust: bool) -> Any:
    return read_tokenizer(folder, folder.name, trust=trust)


def tokens_in(folder: Path, text: str, *, trust: bool = False) -> int:
    """Tokens of a text, without special ones.

    Raises:
        SuiteError: The tokenizer cannot be loaded.
    """
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    return sum(map(len, hf.token_ids(_kept(folder, trust), pieces)))


def first_id(tokenizer: Any) -> int | None:
    """The id that begins every sequence: BOS, or for a model without one its CLS or EOS (as GPT-2 does)."""
    names = ("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")
    return next((token for name in names if (token := getattr(tokenizer, name, None)) is not None), None)


def check_tokenizer(tokenizer: Any, n_rows: int, model_id: str) -> None:
    """Refuses a tokenizer that would hand the model ids which its embedding has no row for.

    Raises:
        SuiteError: BOS, EOS, CLS, SEP or PAD lies outside of the embedding's `n_rows`, or no sequence can begin.
    """
    if first_id(tokenizer) is None:
        raise SuiteError(
            f"model '{model_id}': its tokenizer has neither a BOS nor an EOS nor a CLS token, so no sequence can "
            "begin. Name one in tokenizer_config.json."
        )
    for name in ("bos", "eos", "cls", "sep", "pad"):
        token = getattr(tokenizer, f"{name}_token_id", None)
        if token is not None and not 0 <= token < n_rows:
            raise SuiteError(
                f"model '{model_id}': the {name.upper()} token of its tokenizer has id {token}, but the embedding has "
                f"{n_rows} rows. "
                "Resize the embedding (`resize_token_embeddings(len(tokenizer))`) and train it, or take the "
                "tokenizer that the model was trained with."
            )
