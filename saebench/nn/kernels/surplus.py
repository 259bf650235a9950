"""Dense products that are beyond what an algorithm needs: who counts products leaves them out.

A kernel looks at some tokens a second time, or multiplies with dense rows where that is faster than with few entries.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Thread(threading.local):
    depth = 0


_HERE = _Thread()


@contextmanager
def surplus() -> Iterator[None]:
    """In the block, products are beyond what is charged."""
    _HERE.depth += 1
    try:
        yield
    finally:
        _HERE.depth -= 1


def is_surplus() -> bool:
    """True in such a block of this thread."""
    return _HERE.depth > 0
