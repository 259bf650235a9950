"""Which numbers a suite may hold."""

from __future__ import annotations

import sys
from typing import Any

LARGEST_INT = 2**63 - 1
"""Counts and seeds end up in 64 bits."""


def is_number(value: Any) -> bool:
    """A finite number that a float can hold; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: Any) -> bool:
    """A whole number of 64 bits; `1e6` is one."""
    return is_number(value) and value == int(value) and abs(value) <= LARGEST_INT
