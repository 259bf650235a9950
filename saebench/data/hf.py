"""Every call to transformers whose form differs between its versions: from the lowest that pyproject allows to the newest."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

_CACHE_NAMES = ("cache", "past_key_values")
"""What models call their key-value cache, as an argument and in their output: the newer name first, for the older one warns there."""


def cache_switch(model: nn.Module, use: bool) -> dict[str, bool]:
    """`{"use_cache": use}` for a model that knows the word."""
    return {"use_cache": use} if "use_cache" in _arguments(model) else {}


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
