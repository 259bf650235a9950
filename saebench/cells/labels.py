"""Labels of operating points: short, readable, safe in file names, different for different points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from saebench.base.canonical import digest

LONGEST_LABEL = 120


def point_label(sweep: Mapping[str, Any]) -> str:
    """`k16`, `k16-degree7`, `l1_coefficient0.003`, `target_l0_16`; `default` without sweep.

    A key that ends in a digit is set apart from its value.
    """
    return "-".join(_one(key, value) for key, value in sweep.items()) or "default"


def candidate_label(point: str, tuned: Mapping[str, Any]) -> str:
    """`k16-lr0.001`: a point's label with the values that a candidate tries there."""
    if not tuned:
        return point
    return point_label(tuned) if point == "default" else f"{point}-{point_label(tuned)}"


def fitted(label: str) -> str:
    """The label as a file name takes it: of a longer one the beginning and a digest."""
    return label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 9]}-{digest(label, 8)}"


def _one(key: str, value: Any) -> str:
    text = _compact(value)
    return f"{key}_{text}" if key[-1:].isdigit() or not text[:1].isdigit() else f"{key}{text}"


def _compact(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        return "x".join(_compact(item) for item in value) or "none"
    return re.sub(r"[^A-Za-z0-9.+-]+", "_", str(value))
