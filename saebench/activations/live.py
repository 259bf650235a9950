"""Activations that the model makes while they are read: several hookpoints in one forward, stores written beside.

Building a store ahead of training, building it beside the first epoch, and reading live use the same
forwards over the same groups of windows. They differ in who keeps the rows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saebench import console
from saebench.activations.forward import Rows, forward_rows
from saebench.activations.precision import DTYPES, rounded
from saebench.activations.rows import MemoryBlock, StoreRows
from saebench.activations.store import ActivationStore
from saebench.activations.write import StoreOrder, Writing

if TYPE_CHECKING:
    from saebench.activations.shuffle import Block
    from saebench.activations.token_store import TokenStore
    from saebench.lm.model import LanguageModel


class LivePass:
    """One token stream through the model, block by block, for sources that read in lockstep.

    The first source to ask for a block has it made at all hookpoints that are still read; the others find it
    ready. A source that falls out of step costs forwards of its own and changes no bit. Where a forward begins depends
    on the number of its window alone, so a row has the same bits from the start, after a resume, and with other
    hookpoints beside it.

    Args:
        lm: The model.
        tokens: Its token windows.
        hookpoints: Module paths.
        dtype: Precision that rows are kept in.
        block: Rows that are asked for at once.
        prefetch: Blocks that a reader may be ahead.
        orders: Stores to write, by hookpoint; readers turn to them when they are finished.
    """

    def __init__(
        self,
        lm: LanguageModel,
        tokens: TokenStore,
        hookpoints: Sequence[str],
        *,
        dtype: str,
        block: int,
        prefetch: int = 0,
        orders: Mapping[str, StoreOrder] | None = None,
    ) -> None:
        self.lm, self.tokens, self.dtype, self.block_rows = lm, tokens, dtype, block
        self.widths = {name: lm.facts.hookpoint(name).d for name in hookpoints}
        self.stores: dict[str, ActivationStore] = {}
        self._orders = dict(orders or {})
        self._load = prefetch > 0 or lm.device.type != "cpu"
        self._keep = prefetch + 2
        self._group_windows = lm.rows_per_forward(tokens.length)
        self._expected = set(self.widths)
        self._open: Counter[str] = Counter()
        self._ready: dict[tuple[int, int], dict[str, MemoryBlock]] = {}
        self._last: tuple[int, Rows] | None = None
        self._writing: Writing | None = None
        self._writing_s = 0.0
        self._lock = RLock()

    @property
    def n_rows(self) -> int:
        """Rows of one epoch."""
        return self.tokens.n_rows

    # --- reading ------------------------------------------------------------------------------------------------------

    def block(self, hookpoint: str, start: int, stop: int) -> Block:
        """Rows `[start, stop)` at one hookpoint."""
        with self._lock:
            return self._block(hookpoint, start, stop)

    def head(self, hookpoint: str, n: int) -> Tensor:
        """`[min(n, n_rows), d]` float32: the first rows. The first block stays ready for the training that follows."""
        blocks = []
        with self._lock:
            for start in range(0, min(n, self.n_rows), self.block_rows):
                stop = min(start + self.block_rows, self.n_rows)
                made = self._block(hookpoint, start, stop)
                blocks.append(made.take(torch.arange(min(n, stop) - start)).x)
                if start == 0 and isinstance(made, MemoryBlock) and hookpoint in self._readers:
                    self._ready.setdefault((start, stop), {})[hookpoint] = made
        return torch.cat(blocks)

    def open(self, hookpoint: str) -> None:
        """A reader of this hookpoint begins."""
        with self._lock:
            self._expected.discard(hookpoint)
            self._open[hookpoint] += 1

    def close(self, hookpoint: str) -> None:
        """A reader of this hookpoint ended; with its last one, nothing is made or kept for it any more."""
        with self._lock:
            self._open[hookpoint] -= 1
            if hookpoint not in self._readers:
                self._drop({hookpoint})

    def abandon(self) -> None:
        """No reader will come: blocks are dropped, and a store that is not finished is removed."""
        with self._lock:
            self._expected.clear()
            self._drop(set(self.widths))
            self._last = None
            self._discard()

    def _discard(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.abandon()

    @property
    def _readers(self) -> set[str]:
        """Hookpoints that are read, or will be."""
        return self._expected | {name for name, count in self._open.items() if count > 0}

    def _drop(self, hookpoints: set[str]) -> None:
        for blocks in self._ready.values():
            for name in hookpoints & blocks.keys():
                del blocks[name]
        self._ready = {span: blocks for span, blocks in self._ready.items() if blocks}

    def _block(self, hookpoint: str, start: int, stop: int) -> Block:
        ready = self._ready.get((start, stop), {})
        if hookpoint in ready:
            made = ready.pop(hookpoint)
            if not ready:
                del self._ready[start, stop]
            return made
        if hookpoint in self.stores:
            return StoreRows(self.stores[hookpoint], self.lm.device, load=self._load).block(start, stop)
        try:
            blocks = self._make(start, stop, self._readers | {hookpoint})
        except BaseException:
            self._discard()
            raise
        mine = blocks.pop(hookpoint)
        if blocks:
            self._ready[start, stop] = blocks
            while len(self._ready) > self._keep:
                del self._ready[next(iter(self._ready))]
        return mine

    def _make(self, start: int, stop: int, read: set[str]) -> dict[str, MemoryBlock]:
        """A block at every hookpoint that is read, written into the stores that have reached it."""
        started = time.perf_counter()
        writing = self._begin()
        if writing is not None and writing.n_rows < start:
            self._write_up_to(start)
        behind = writing is not None and writing.n_rows >= stop
        names = [name for name in self.widths if name in read or (name in self._orders and not behind)]
        size, device = stop - start, self.lm.device
        x = {name: torch.empty(size, self.widths[name], dtype=DTYPES[self.dtype], device=device) for name in read}
        index: dict[str, Tensor] = {}
        at = start
        for rows in self._rows(start, stop, names):
            here = slice(at - start, at - start + len(rows))
            for name in read:
                x[name][here] = rows.x[name]
            for name, values in rows.index.items():
                index.setdefault(name, torch.empty(size, dtype=torch.int32))[here] = values
            if writing is not None and at == writing.n_rows:
                writing.add(rows)
            at += len(rows)
        self._end(started)
        index = {name: values.to(device) for name, values in index.items()}
        return {name: MemoryBlock(values, index) for name, values in x.items()}

    def _rows(self, start: int, stop: int, names: Sequence[str]) -> Iterator[Rows]:
        """Rows `[start, stop)` in pieces, in storage precision. A forward always takes a whole group of windows."""
        first = self.tokens.starts
        group = (int(np.searchsorted(first, start, side="right")) - 1) // self._group_windows
        while start < stop:
            low = group * self._group_windows
            high = min(low + self._group_windows, self.tokens.n_windows)
            rows = self._forward(group, low, high, names).cut(start - int(first[low]), stop - int(first[low]))
            yield rows
            start += len(rows)
            group += 1

    def _forward(self, group: int, low: int, high: int, names: Sequence[str]) -> Rows:
        """One group; the last one is kept, for a block may end within it."""
        if self._last is None or self._last[0] != group or not set(names) <= self._last[1].x.keys():
            made = forward_rows(self.lm, names, self.tokens.windows(low, high), low)
            self._last = group, Rows({name: rounded(x, self.dtype) for name, x in made.x.items()}, made.index)
        return self._last[1]

    # --- writing ------------------------------------------------------------------------------------------------------

    def write_all(self, label: str) -> None:
        """Writes all ordered stores, ahead of any reading.

        Raises:
            SuiteError: An activation is not finite, or too large for the precision.
            MachineError: The disk refuses.
        """
        with self._lock, console.phase("activations", label, total=self.n_rows, unit="tok") as bar:
            started = time.perf_counter()
            try:
                if self._begin() is not None:
                    self._write_up_to(self.n_rows, bar)
                self._end(started)
            finally:
                self.abandon()

    def _begin(self) -> Writing | None:
        if self._orders and self._writing is None:
            self._writing, self._writing_s = Writing(self._orders, self.widths, self.dtype, self.n_rows), 0.0
        return self._writing

    def _write_up_to(self, stop: int, bar: Any = None) -> None:
        assert self._writing is not None
        for rows in self._rows(self._writing.n_rows, stop, list(self._orders)):
            self._writing.add(rows)
            if bar is not None:
                bar.update(len(rows))

    def _end(self, started: float) -> None:
        """Ends work on the stores that began at `started`; finishes them when they hold every row."""
        self._writing_s += time.perf_counter() - started
        if self._writing is not None and self._writing.n_rows == self.n_rows:
            writing, self._writing = self._writing, None
            self.stores |= writing.finish(self.tokens.documents, self._writing_s)
            self._orders = {}


class LiveRows:
    """One hookpoint of a live pass (`shuffle.RowProvider`)."""

    def __init__(self, live: LivePass, hookpoint: str) -> None:
        self.live, self.hookpoint = live, hookpoint
        self.n_rows, self.d = live.n_rows, live.widths[hookpoint]

    def block(self, start: int, stop: int) -> Block:
        """See `shuffle.RowProvider`."""
        return self.live.block(self.hookpoint, start, stop)

    def head(self, n: int) -> Tensor:
        """See `shuffle.RowProvider`."""
        return self.live.head(self.hookpoint, n)

    def open(self) -> None:
        """See `shuffle.RowProvider`."""
        self.live.open(self.hookpoint)

    def close(self) -> None:
        """See `shuffle.RowProvider`."""
        self.live.close(self.hookpoint)
