"""Blocks in memory, and rows of a finished store."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from saebench.activations.store import ActivationStore, batch_of, to_device
from saebench.api.batches import ActivationBatch


class MemoryBlock:
    """Rows in memory, in storage precision, on the device where they are used.

    Args:
        x: `[n, d]`.
        index: `token_ids`, `positions`, `sequence_ids`, each `[n]`, where there are tokens.
    """

    def __init__(self, x: Tensor, index: Mapping[str, Tensor]) -> None:
        self.x, self.index = x, index

    def take(self, rows: Tensor) -> ActivationBatch:
        """See `shuffle.Block`."""
        rows = rows.to(self.x.device)
        x = self.x.index_select(0, rows).float()
        return batch_of(x, {name: values.index_select(0, rows).long() for name, values in self.index.items()})


class _MappedBlock:
    """Rows of a store, read when they are picked."""

    def __init__(self, store: ActivationStore, start: int, device: torch.device) -> None:
        self._store, self._start, self._device = store, start, device

    def take(self, rows: Tensor) -> ActivationBatch:
        return to_device(self._store.take(rows + self._start), self._device)


class StoreRows:
    """Rows of a finished store (`shuffle.RowProvider`).

    Args:
        store: The store.
        device: Where batches are handed out.
        load: Whether a block is read into memory as a whole, one after the other: worth it in a background thread and
            for an accelerator. Otherwise batches are picked straight from the mapped files.
    """

    def __init__(self, store: ActivationStore, device: torch.device, *, load: bool) -> None:
        self.store, self.device, self.load = store, device, load
        self.n_rows, self.d = store.n_rows, store.d

    def block(self, start: int, stop: int) -> MemoryBlock | _MappedBlock:
        """See `shuffle.RowProvider`."""
        if not self.load:
            return _MappedBlock(self.store, start, self.device)
        columns = self.store.columns_of(torch.arange(start, stop))
        here = {name: values.to(self.device) for name, values in columns.items()}
        return MemoryBlock(here.pop("x"), here)

    def head(self, n: int) -> Tensor:
        """See `shuffle.RowProvider`."""
        return self.store.slice(0, n).x.to(self.device)

    def open(self) -> None:
        """See `shuffle.RowProvider`."""

    def close(self) -> None:
        """Nothing is kept for a reader of mapped files."""
