"""Running a plan: one cohort after another, resume, provenance. Names are resolved on first use; `status` needs no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench.execute.api import RunResult, load_sae, plan_suite, run, run_suite, starter

__all__ = ["RunResult", "load_sae", "plan_suite", "run", "run_suite", "starter"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("saebench.execute.api"), name)
    raise AttributeError(f"module 'saebench.execute' has no attribute {name!r}")
