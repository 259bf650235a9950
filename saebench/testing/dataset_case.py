"""One dataset with its options, opened and read for the rules of `saebench.testing.datasets`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

from saebench.api import DatasetSpec, Document
from saebench.api.specs import resolve
from saebench.testing.dataset_context import StandInContext

ITEMS, TOKENS, BATCH = 200, 2_000, 64
"""How much of a dataset is read: documents, tokens or vectors, and vectors a batch."""


class DatasetCase:
    """One dataset with its options, opened and read on demand."""

    def __init__(self, spec: DatasetSpec, options: Any) -> None:
        self.spec, self.options = spec, options

    @cached_property
    def data(self) -> Any:
        """Opened once for rules that only look."""
        return self.opened()

    @cached_property
    def first(self) -> list[str]:
        """Digests of its first reading."""
        return self.prints(self.data)

    def opened(self, options: Any = None, context: StandInContext | None = None) -> Any:
        """What `open` returns, for other options or with another context where these are given."""
        return resolve(self.spec.open)(options or self.options, context or StandInContext())

    def read(self, data: Any, split: str = "train", amount: int = TOKENS, seed: int = 0) -> Iterator[Any]:
        """Documents, sequences or batches."""
        if self.spec.kind == "text":
            takes = "split" in inspect.signature(data.documents).parameters
            return islice(data.documents(split) if takes else data.documents(), ITEMS)
        if self.spec.kind == "generated":
            return iter(data.sequences(split, amount))
        return iter(data.batches(split, amount, BATCH, seed))

    def prints(self, data: Any, split: str = "train", seed: int = 0) -> list[str]:
        """One digest for each item, in their order; of vectors one for each row."""
        return [print_ for item in self.read(data, split, seed=seed) for print_ in _prints(item)]


def _prints(item: Any) -> Iterator[str]:
    if isinstance(item, Document):
        yield hashlib.sha256(item.text.encode(errors="surrogatepass")).hexdigest()
        return
    for row in getattr(item, "x", item[None] if hasattr(item, "numpy") else [item]):
        yield hashlib.sha256(row.detach().contiguous().numpy().tobytes()).hexdigest()
