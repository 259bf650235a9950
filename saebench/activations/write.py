"""Stores of several hookpoints that are written side by side."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.activations.forward import Rows
from saebench.activations.quota import check_space, row_bytes
from saebench.activations.store import ActivationStore, StoreWriter
from saebench.artifacts import machine_errors


@dataclass(frozen=True)
class StoreOrder:
    """A store to be written: where, under which key, with which facts; `what` names it in messages."""

    folder: Path
    key: Mapping[str, Any]
    facts: Mapping[str, Any]
    what: str


class _Abandoned(Exception):
    """Ends a store that will not be finished."""


def _discard(stack: ExitStack) -> None:
    stack.__exit__(_Abandoned, _Abandoned(), None)


class Writing:
    """Stores that are being written, all of them row by row in stream order."""

    def __init__(self, orders: Mapping[str, StoreOrder], widths: Mapping[str, int], dtype: str, n_rows: int) -> None:
        self.orders, self.n_rows = orders, 0
        self._at = next(iter(orders.values())).folder
        total = sum(n_rows * row_bytes(widths[name], dtype) for name in orders)
        check_space(self._at, total, " and ".join(order.what for order in orders.values()))
        with ExitStack() as stack:
            self._writers: dict[str, StoreWriter] = {
                name: stack.enter_context(
                    ActivationStore.building(
                        order.folder, order.key, d=widths[name], dtype=dtype, expected_rows=n_rows, what=order.what
                    )
                )
                for name, order in orders.items()
            }
            self._stack = stack.pop_all()
        # also when it is collected, or the process exits; after a kill the next run removes what is left
        self._discard = weakref.finalize(self, _discard, self._stack)

    def add(self, rows: Rows) -> None:
        """The next rows, at every hookpoint that has a store."""
        with machine_errors(self._at):
            for name, writer in self._writers.items():
                writer.add(rows.batch(name))
        self.n_rows += len(rows)

    def finish(self, documents: frozenset[str], forward_s: float) -> dict[str, ActivationStore]:
        """The finished stores, which say how long the model took to fill them."""
        for name, writer in self._writers.items():
            writer.facts, writer.documents = {**self.orders[name].facts, "forward_s": forward_s}, set(documents)
        self._discard.detach()
        self._stack.close()
        stores = {}
        for name, order in self.orders.items():
            store = ActivationStore.open(order.folder, order.key, checked=True)
            assert store is not None
            stores[name] = store
        return stores

    def abandon(self) -> None:
        """Nothing of them stays."""
        self._discard()
