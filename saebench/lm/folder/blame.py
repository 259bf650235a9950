"""Which key of which file is to blame where transformers cannot read a model folder: its own messages rarely say."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from saebench.lm import hf

_OBJECTS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_PARTS = {"added_tokens": list, "model": dict}
"""What every tokenizer.json holds."""
_NAMES = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
"""What JSON calls it; the others are numbers."""


def config_fault(folder: Path) -> str | None:
    """`hidden_act: 'x'`: the one key without which config.json makes a model, and its value; None without one."""
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = values.pop("model_type")
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError):
        return None
    for name, value, rest in _each_left_out(values):
        try:
            config = hf.new_config(kind, **rest)
            with torch.device("meta"):
                hf.new_model(config, decoder=hf.is_decoder(config))
        except Exception:  # noqa: BLE001 - a model's own code
            continue  # the fault is still there
        return f"{name}: {shorten(repr(value), 80, placeholder=' ...')}"
    return None


def _each_left_out(values: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Every key, parts of an inner config first, with its value and a copy of all the others."""
    for key, value in values.items():
        for inner in value if isinstance(value, dict) else ():
            rest = copy.deepcopy(values)
            del rest[key][inner]
            yield f"{key}.{inner}", value[inner], rest
        yield key, value, copy.deepcopy({name: other for name, other in values.items() if name != key})


def tokenizer_fault(folder: Path) -> str | None:
    """What is wrong with the shape of a tokenizer's files, beginning with the file's name; None where that is sound."""
    for path in (folder / name for name in _OBJECTS):
        if not path.is_file():
            continue
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            return f"{path.name} is no JSON ({shorten(str(error), 120, placeholder=' ...')})"
        if not isinstance(value, dict):
            return f"{path.name} holds {_called(value)}, expected an object"
        for key, expected in _PARTS.items() if path.name == "tokenizer.json" else ():
            if key not in value:
                return f"{path.name} has no key '{key}'"
            if not isinstance(value[key], expected):
                return f"{path.name} {key}: found {_called(value[key])}, expected {_NAMES[expected]}"
    return None


def _called(value: Any) -> str:
    return _NAMES.get(type(value), "a number")
