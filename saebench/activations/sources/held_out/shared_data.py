"""Held-out data of one dataset and evaluation seed, computed once and shared by all cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from saebench.activations.sources.held_out.loss_windows import LossSet
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.activations.store import ActivationStore
    from saebench.api.codes import SparseCodes
    from saebench.api.metrics import Stream
    from saebench.api.specs import CellMetricSpec, StreamSpec
    from saebench.cells.cell import DatasetUse, ModelUse

MEAN_ROWS = 8192
"""Rows read at a time for the mean."""


class HeldOutData(ABC):
    """What does not depend on the cell that is scored.

    Attributes:
        dataset, model: What it is of; no model for datasets of vectors.
        sizes: `tokens`, `density_tokens`, `loss_tokens` as asked for.
        seed: Evaluation seed.
        part: Of the held-out data; None: all of it.
        store: Activations of streams `eval` and `density`.
        documents: Digests of the documents that were read.
        dictionary: `[n_features, d_in]` true features, or None.
        added: Streams that metrics add, each with the metric spec that adds it.
    """

    added: Mapping[str, tuple[StreamSpec, CellMetricSpec]] = {}
    store: ActivationStore
    documents: frozenset[str] = frozenset()
    dictionary: Tensor | None = None

    def __init__(
        self,
        dataset: DatasetUse,
        model: ModelUse | None,
        sizes: Mapping[str, int],
        seed: int,
        part: HeldOutPart | None,
    ) -> None:
        self.dataset, self.model, self.sizes, self.seed, self.part = dataset, model, sizes, seed, part
        self.n_rows = max(sizes["tokens"], sizes["density_tokens"])

    @abstractmethod
    def absent(self) -> dict[str, str]:
        """Streams that do not exist here, with reasons."""

    @cached_property
    def mean(self) -> Tensor:
        """`[d]` float32 mean of stream `eval`: FVU measures from it, and `ce-mean` puts it in place of activations."""
        n = min(self.sizes["tokens"], self.store.n_rows)
        pieces = (self.store.slice(start, min(start + MEAN_ROWS, n)).x for start in range(0, n, MEAN_ROWS))
        return (torch.stack([piece.double().sum(0) for piece in pieces]).sum(0) / n).float()

    @property
    def folders(self) -> set[Path]:
        """Folders of the stores that it reads."""
        return {self.store.folder}

    def stream_store(self, name: Stream, training_documents: frozenset[str]) -> ActivationStore:
        """The store of a stream of activations."""
        return self.store

    def splice(self) -> dict[str, Any] | None:
        """On which tokens splicing was shown to be exact; None without losses."""
        return None

    def truth(self, start: int, stop: int) -> SparseCodes | None:
        """True codes of rows of the store; None where they are not known."""
        return None

    def losses(self) -> LossSet | None:
        """Windows with clean, zero and mean losses; None without losses."""
        return None

    def cost(self, streams: Set[Stream]) -> dict[str, int]:
        """Work of the language model for these streams: `{"tokens", "flops"}`."""
        return {"tokens": 0, "flops": 0}

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token as text; empty without tokens."""
        return []
