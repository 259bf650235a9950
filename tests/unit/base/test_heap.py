"""Freed memory goes back to the system."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from saebench.base.heap import give_back


def resident() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc")
def test_what_was_freed_below_what_is_held_goes_back() -> None:
    pieces = [bytes(100_000) for _ in range(2000)]  # below the size that is handed back at once
    last = bytes(100_000)  # above them in the heap, so that it cannot shrink
    del pieces
    before = resident()
    give_back()
    give_back()
    assert resident() < before - 50_000_000
    assert len(last) == 100_000
