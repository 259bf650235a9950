"""From token windows to rows of activations: forwards over fixed groups of windows, special tokens left out.

A forward always takes the same windows together, so a row always has the same bits.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saebench import console
from saebench.activations.store import batch_of
from saebench.api.batches import ActivationBatch

if TYPE_CHECKING:
    from saebench.activations.store import StoreWriter
    from saebench.lm.model import LanguageModel


@dataclass(frozen=True)
class Rows:
    """Consecutive rows at one or more hookpoints.

    Attributes:
        x: `[n, d]` float32 by hookpoint, on the model's device.
        index: `token_ids`, `positions`, `sequence_ids` and, of held-out text, `document_ids`: each `[n]` int64 on the
            CPU.
    """

    x: dict[str, Tensor]
    index: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.index["positions"])

    def cut(self, start: int, stop: int) -> Rows:
        """Rows `[start, stop)`."""
        return Rows(
            {name: x[start:stop] for name, x in self.x.items()},
            {name: values[start:stop] for name, values in self.index.items()},
        )

    def batch(self, hookpoint: str) -> ActivationBatch:
        """One hookpoint's rows."""
        return batch_of(self.x[hookpoint], self.index)


def forward_rows(
    lm: LanguageModel, hookpoints: Sequence[str], ids: Tensor, first: int, documents: Tensor | None = None
) -> Rows:
    """Rows of the windows `ids [S, T]`, the first of them number `first`. Nothing behind the deepest hookpoint runs.

    `documents [S, T]`: the document that each token is from, where it is known.

    Raises:
        SuiteError: An activation is not finite.
    """
    ids = trimmed(lm, ids)
    rows, positions = (~lm.special_mask(ids)).nonzero(as_tuple=True)
    found = lm.activations_at(ids, hookpoints)
    x = {}
    for hookpoint in hookpoints:
        x[hookpoint] = found[hookpoint][rows.to(lm.device), positions.to(lm.device)]
        if not bool(torch.isfinite(x[hookpoint]).all()):
            raise lm.not_finite(f"an activation at '{hookpoint}'")
    index = {"token_ids": ids[rows, positions], "positions": positions, "sequence_ids": rows + first}
    if documents is not None:
        index["document_ids"] = documents[rows, positions]
    return Rows(x, index)


def fill(
    writer: StoreWriter,
    lm: LanguageModel,
    hookpoint: str,
    windows: Iterable[Tensor],
    n_tokens: int,
    label: str,
    documents: Tensor | None = None,
) -> None:
    """Writes activations of the first `n_tokens` non-special tokens of windows `[T]`; reads all windows.

    `documents [S, T]`: of these windows, the document that each token is from. None: each window is its own.
    """
    read = iter(windows)
    first = 0
    with console.phase("held-out", label, total=n_tokens, unit="tok") as bar:
        while group := _group(read, lm):
            rows = None
            if writer.n_rows < n_tokens:
                theirs = None if documents is None else documents[first : first + len(group)]
                rows = forward_rows(lm, [hookpoint], torch.stack(group), first, theirs)
                rows = rows.cut(0, n_tokens - writer.n_rows)
                writer.add(rows.batch(hookpoint))
            first += len(group)
            bar.update(len(rows) if rows is not None else 0)


def _group(windows: Iterator[Tensor], lm: LanguageModel) -> list[Tensor]:
    """The windows of the next forward; empty at the end."""
    group = list(itertools.islice(windows, 1))
    if group:
        group += itertools.islice(windows, lm.rows_per_forward(len(group[0])) - 1)
    return group


def trimmed(lm: LanguageModel, ids: Tensor) -> Tensor:
    """`ids [S, T]` without the columns in which every row is padding behind its end."""
    real = ~lm.special_mask(ids)
    columns = real.any(0).nonzero()
    last = int(columns.max()) if len(columns) else 0
    return ids[:, : min(ids.shape[1], last + 2)]
