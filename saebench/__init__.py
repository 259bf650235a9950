"""saebench: a plugin-based benchmarking harness for sparse autoencoders.

Importing this package loads neither torch nor any plugin; the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from saebench.execute import load_sae as load_sae
    from saebench.execute import run as run

_LAZY = {"run": "saebench.execute", "load_sae": "saebench.execute"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
