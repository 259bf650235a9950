"""The config.json of a model folder: what it says, and why transformers makes no model of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from saebench.api.errors import SuiteError
from saebench.lm import hf
from saebench.lm.folder.blame import config_fault
from saebench.lm.folder.locate import in_a_line, json_object

Kind = Literal["decoder", "headless", "encoder"]
"""A `decoder` predicts next tokens. A `headless` one lacks the layer that does. An `encoder` sees both sides."""
MOST_BLOCKS, MOST_ROWS = 4096, 1 << 26
"""No model has as many blocks, or tokens; building more takes minutes before anything can be said of them."""


def reason(error: BaseException) -> str:
    """The error of a library in a line; where a package is missing, that."""
    text = " ".join(str(error).split())
    package = re.search(r"pip install (?:-[-\w]+ )*[`'\"]?([A-Za-z][\w-]*)", text)
    needed = error.name if isinstance(error, ModuleNotFoundError) and error.name else package and package[1]
    if needed in (None, "transformers", "git"):
        return in_a_line(error)
    return f"it needs the package {needed}: pip install {needed}"


def read_config(folder: Path, model_id: str, *, trust: bool = False) -> Any:
    """The model's config. Code that a model brings along is run with `trust` alone, and none of another folder ever.

    Raises:
        SuiteError: Broken, of a class that transformers does not have, or an encoder-decoder.
    """
    kind = json_object(folder / "config.json", model_id).get("model_type", "")
    if trust:
        _refuse_code_of_others(folder, model_id)
    if not isinstance(kind, str):
        raise SuiteError(
            f"model '{model_id}': config.json has model_type: {kind!r:.80}; "
            "expected the name of a family of transformers. Give the config.json that belongs to its weights."
        )
    try:
        config = hf.config_in(folder, trust=trust)
    except Exception as error:
        fault = config_fault(folder)
        unusable = (
            f"config.json cannot be used ({reason(error)}). "
            "saebench runs transformers' own classes only, never code that a model brings along unless the suite says "
            "`load: {trust_remote_code: true}`."
        )
        raise SuiteError(f"model '{model_id}': {no_model(fault, error) if fault else unusable}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise SuiteError(
            f"model '{model_id}' is an encoder-decoder ({config.model_type}); allowed are decoders and encoders."
        )
    for name, most in (("num_hidden_layers", MOST_BLOCKS), ("vocab_size", MOST_ROWS)):
        number = getattr(hf.text_config(config), name, None)
        if isinstance(number, int) and not 1 <= number <= most:
            raise SuiteError(
                f"model '{model_id}': config.json has {name}: "
                f"{number if abs(number) < 1 << 64 else 'a giant number'}; allowed are 1 to {most}. "
                "Give the config.json that belongs to its weights."
            )
    if not isinstance(getattr(hf.text_config(config), "vocab_size", None), int):
        parts = ", ".join(sorted(getattr(config, "sub_configs", {}))) or "none"
        raise SuiteError(
            f"model '{model_id}' is no language model ({config.model_type}): "
            f"its config has no vocabulary, and neither has a text part of it (parts: {parts})."
        )
    return config


def _refuse_code_of_others(folder: Path, model_id: str) -> None:
    """Refuses a folder that names code which lies elsewhere: transformers would fetch and run it."""
    for path in (folder / name for name in ("config.json", "tokenizer_config.json")):
        named = str(json_object(path, model_id).get("auto_map") or "") if path.is_file() else ""
        if "--" in named:
            raise SuiteError(
                f"model '{model_id}': {path.name} names code of another place ({named:.120}), and only the code in its "
                "own folder is run. Copy that code there, and name it in auto_map without what is before the `--`."
            )


def context_limit(config: Any) -> int | None:
    """Longest sequence by the config, or None."""
    config = hf.text_config(config)
    kind = getattr(config, "model_type", "")
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            # RoBERTa's positions start behind its padding id.
            padded = kind in {"roberta", "xlm-roberta", "camembert", "longformer", "mpnet"}
            return limit - 2 if padded else limit
    return None


def cache_values(config: Any, n_layers: int, width: int) -> int:
    """Values that the key-value cache keeps of each token: key and value of every key-value head of every layer.

    Where the config does not say how many heads share them, a layer keeps two vectors of the model's width.
    """
    config = hf.text_config(config)
    heads = getattr(config, "num_attention_heads", None)
    shared = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or (width // heads if heads else None)
    return 2 * n_layers * (shared * size if shared and size else width)


def no_model(fault: str | None, error: Exception) -> str:
    """Why a config makes no model; `fault` is the key that is to blame, where one is known."""
    found = f"config.json has {fault}, which makes" if fault else "config.json makes"
    return f"{found} no model ({reason(error)}). Give the config.json that belongs to its weights."
