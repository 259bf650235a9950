"""Helper modules stand beside the tests that they help; pytest's importlib mode puts no test folder on the path."""

from __future__ import annotations

import sys
from pathlib import Path

for room in ("artifacts", "interop", "matching", "console", "pair"):
    sys.path.insert(0, str(Path(__file__).parent / room))
