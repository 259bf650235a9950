"""saebench: a plugin-based benchmarking harness for sparse autoencoders.

Importing this package loads neither torch nor any plugin; `run` and `load_sae` are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from saebench.version import __version__ as __version__

if TYPE_CHECKING:
    from saebench.jobs import load_sae as load_sae
    from saebench.jobs import run as run

_LAZY = ("run", "load_sae")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module("saebench.jobs"), name)
    raise AttributeError(f"module 'saebench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
