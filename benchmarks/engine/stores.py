"""Stores of plain rows: written, read in the order of training, cold and warm."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from saebench.activations.rows import StoreRows
from saebench.activations.sources.training import SourceFacts, TrainingSource
from saebench.activations.store import ActivationStore
from saebench.api import ActivationBatch
from saebench.base.random import generator

BATCH = 2048
CAN_DROP = hasattr(os, "posix_fadvise")


def rows_of(n: int, d: int) -> Tensor:
    """Some rows; what they hold does not matter here."""
    return torch.randn(n, d, generator=generator("rows", n, d))


def write(folder: Path, rows: Tensor, n_rows: int, dtype: str) -> int:
    """Writes `rows` over and over with their index, as a live source does: hashed, flushed, renamed.

    Gives the bytes on disk.
    """
    shutil.rmtree(folder, ignore_errors=True)
    index = torch.arange(len(rows))
    with ActivationStore.building(
        folder, {"dtype": dtype}, d=rows.shape[1], dtype=dtype, expected_rows=n_rows, what="benchmark"
    ) as writer:
        while writer.n_rows < n_rows:
            writer.add(ActivationBatch(rows, rows, index, index, index))
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def forget(folder: Path) -> None:
    """Asks the system to drop the files from its cache. No map of them may be open."""
    for file in folder.glob("*.bin"):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(folder: Path, dtype: str, device: torch.device, batch: int = BATCH) -> Callable[[], None]:
    """Opens a store anew; the call reads one epoch as training does: blocks of 65,536 rows, permuted, in float32."""
    store = ActivationStore.open(folder, {"dtype": dtype}, checked=True)
    assert store is not None
    facts = SourceFacts("rows", "", {}, None, {"tokens": 0, "flops": 0}, 0.0, 0, 0.0)
    rows = StoreRows(store, device, load=device.type != "cpu")
    source = TrainingSource(rows, facts, frozenset(), shuffle=65_536, prefetch=int(device.type != "cpu"))

    def read() -> None:
        batches = source.batches(batch, 0)
        for _ in range(store.n_rows // batch):
            next(batches)
        batches.close()

    return read
