"""The leaderboard: a pure function of records. No torch, no training code, no network, no clock.

Equal records and versions give equal bytes. `load` and `load_groups` give pandas frames, `build` writes the pages,
`summary` gives the headline table for a terminal, `diff` compares the facts of two folders, `diff_tolerant` within
noise. All are resolved on first use: pandas and altair are slow to import, and `saebench --help` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench.leaderboard.pages.terminal import summary as summary
    from saebench.leaderboard.read.differences import Difference as Difference
    from saebench.leaderboard.read.differences import diff as diff
    from saebench.leaderboard.read.frames import load as load
    from saebench.leaderboard.read.frames import load_groups as load_groups
    from saebench.leaderboard.read.within import Comparison as Comparison
    from saebench.leaderboard.read.within import Moved as Moved
    from saebench.leaderboard.read.within import diff_tolerant as diff_tolerant
    from saebench.leaderboard.read.within import ways as ways
    from saebench.leaderboard.write import build as build
    from saebench.leaderboard.write import check_pages as check_pages

# No module here is called `build` or `diff`: a submodule of that name would hide the function.
_LAZY = {
    "build": "write",
    "check_pages": "write",
    "diff": "read.differences",
    "Difference": "read.differences",
    "diff_tolerant": "read.within",
    "Comparison": "read.within",
    "Moved": "read.within",
    "ways": "read.within",
    "load": "read.frames",
    "load_groups": "read.frames",
    "summary": "pages.terminal",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"saebench.leaderboard.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'saebench.leaderboard' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
