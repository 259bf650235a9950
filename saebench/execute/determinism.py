"""Threads and deterministic operators: what makes equal runs give equal bits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def run_numerics(threads: int) -> Iterator[None]:
    """The settings of a run; the caller's come back afterwards.

    Args:
        threads: For torch's operators.
    """
    import torch

    before, deterministic, warn, fill = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    # cuBLAS is deterministic with a workspace of fixed size only; it reads this once, before its first product
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # we read no memory before writing it, and filling what is about to be written costs as much as writing it
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.set_num_threads(before)
