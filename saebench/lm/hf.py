"""Every call to transformers, from the lowest version that pyproject allows to the newest, without a warning.

Nothing else imports it, and nothing here imports it before it is called. What comes back is as untyped as transformers
is.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn


@contextmanager
def quiet() -> Iterator[None]:
    """Silences transformers' own log lines and progress bars, and puts its settings back."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


# --- configs and classes ----------------------------------------------------------------------------------------------


def config_in(folder: Path, *, trust: bool = False) -> Any:
    """The config of a model folder. Code that a model brings along is run with `trust` alone."""
    from transformers import AutoConfig

    with quiet():
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)


def text_config(config: Any) -> Any:
    """The config of the language model inside a config: the config itself, but for models with pictures or sound."""
    find = getattr(config, "get_text_config", None)
    return find(decoder=True) if find is not None else config


def is_decoder(config: Any) -> bool:
    """True for a model that predicts next tokens, by its type and not by the class that a checkpoint was saved from."""
    from transformers.models.auto import modeling_auto as auto

    if not hasattr(config, "model_type"):
        return True  # a plugin's own model: the hook asks for a language model
    if is_remote(config):
        return _CAUSAL in config.auto_map
    both_sides = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(
        config, "is_decoder", False
    )
    predicts = (
        config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        or config.model_type in auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    )
    return predicts and not both_sides


_CAUSAL = "AutoModelForCausalLM"


def is_remote(config: Any) -> bool:
    """Whether the class of a config is code that its folder brought along."""
    return type(config).__module__.startswith("transformers_modules.")


def new_model(config: Any, *, decoder: bool, trust: bool = False, attention: str | None = None) -> Any:
    """A model with random weights: with the layer that predicts next tokens, or without."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto as auto

    known = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or is_remote(config)
    predicting = AutoModelForCausalLM if known else AutoModelForImageTextToText
    chosen = {} if attention is None else {"attn_implementation": attention}
    with quiet():
        return (predicting if decoder else AutoModel).from_config(config, trust_remote_code=trust, **chosen)


def check_attention(config: Any, attention: str, *, decoder: bool, trust: bool) -> None:
    """Builds the model with an attention on the meta device; raises whatever transformers does where it cannot."""
    with torch.device("meta"):
        new_model(copy.deepcopy(config), decoder=decoder, trust=trust, attention=attention)


def attentions() -> tuple[str, ...]:
    """Names of the attention implementations that come with transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    return ("eager", *sorted(name for name in ALL_ATTENTION_FUNCTIONS.valid_keys() if "|" not in name))


def new_config(model_type: str, **values: Any) -> Any:
    """A config of a family, from its values."""
    from transformers import AutoConfig

    with quiet():
        return AutoConfig.for_model(model_type, **values)


def from_tensors(
    model_class: Any,
    config: Any,
    tensors: dict[str, Any],
    *,
    ignore_mismatched_sizes: bool,
    dtype: torch.dtype = torch.float32,
    **settings: Any,
) -> tuple[Any, dict[str, Any]]:
    """A model with these weights, and which names it missed, did not take or found of another shape."""
    with quiet():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=ignore_mismatched_sizes,
            **settings,
        )
    return model, info


def quantisation(kind: str, dtype: torch.dtype) -> Any:
    """How bitsandbytes keeps the weights of linear layers, which compute in `dtype`."""
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=dtype, bnb_4bit_quant_type="nf4")


def fit_headers(model_class: Any, config: Any, headers: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """`from_tensors` for tensors on the meta device. Missing ones stay there too: they may not fit into memory."""

    def leave(*_args: Any, **_kwargs: Any) -> None:
        """In place of making values for it."""

    steps = dict.fromkeys(("_move_missing_keys_from_meta_to_device", "_initialize_missing_keys"), leave)
    # conversions of names go by the class's name and module
    planned = type(model_class.__name__, (model_class,), {"__module__": model_class.__module__, **steps})
    return from_tensors(planned, config, headers, ignore_mismatched_sizes=True)


# --- tokenizers -------------------------------------------------------------------------------------------------------


def tokenizer_in(folder: Path, *, trust: bool = False) -> Any:
    """The tokenizer of a model folder. Code that a model brings along is run with `trust` alone."""
    from transformers import AutoTokenizer

    with quiet():
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)


def new_tokenizer(tokenizer: Any, **tokens: str) -> Any:
    """A tokenizer of the package tokenizers, as models have it; `tokens` names the special ones."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text, without special tokens; text that resembles a special token is text."""
    with quiet():
        ids: list[list[int]] = tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False
        )["input_ids"]
    return ids


# --- the key-value cache ----------------------------------------------------------------------------------------------

_CACHE_NAMES = ("cache", "past_key_values")
"""What models call their key-value cache, as argument and in their output. The newer name is first: the other warns."""


def cache_switch(model: nn.Module, use: bool) -> dict[str, bool]:
    """`{"use_cache": use}` for a model that takes the argument; never asks for a cache that the model cannot use.

    RWKV gives other logits for a first token alone where it is asked for its state.
    """
    return {"use_cache": use and bool(_cache_name(model))} if "use_cache" in _arguments(model) else {}


def cache_argument(model: nn.Module, cache: Any) -> dict[str, Any]:
    """The arguments that go on from `cache`, which `cache_of` gave."""
    return {_cache_name(model): cache, **cache_switch(model, True)}


def cache_of(model: nn.Module, output: Any) -> Any | None:
    """The cache in a model's output, or None where it makes none or cannot take it back."""
    name = _cache_name(model)
    return getattr(output, name, None) if name else None


def _cache_name(model: nn.Module) -> str:
    return next((name for name in _CACHE_NAMES if name in _arguments(model)), "")


def _arguments(model: nn.Module) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)
