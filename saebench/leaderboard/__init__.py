"""The leaderboard: a pure function of records. No torch, no training code, no network, no clock.

Equal records and versions give equal bytes. `load` gives a pandas frame, `build` the pages, `diff` the differences of two folders.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench.leaderboard.build import build as build
    from saebench.leaderboard.diff import Difference as Difference
    from saebench.leaderboard.diff import diff as diff
    from saebench.leaderboard.frame import load as load
    from saebench.leaderboard.frame import load_groups as load_groups

# Resolved on first use: pandas and altair are slow to import and `saebench --help` needs neither. The functions of modules
# `build` and `diff` carry their modules' names, so these imports must not happen by attribute access on the package.
_LAZY = {"build": "build", "diff": "diff", "Difference": "diff", "load": "frame", "load_groups": "frame"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(f"saebench.leaderboard.{_LAZY[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'saebench.leaderboard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
