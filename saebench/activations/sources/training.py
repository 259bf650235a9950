"""Training activations of one cohort, from a store or live from the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saebench.activations.shuffle import RowProvider, shuffled_batches
from saebench.api.batches import ActivationBatch
from saebench.api.errors import SuiteError

_SAMPLE_SEED, _SAMPLE_BATCH = 7, 4096
"""Of the order in which random rows are read, and of their reading."""


@dataclass(frozen=True)
class SourceFacts:
    """What is known of training data beside its rows.

    Attributes:
        dataset: Its name.
        content: Digest of what it is: its token windows, or its vectors.
        manifest: The dataset's own facts.
        token_policy: How tokens were made and which are left out; None without a model.
        data_cost: What making the data cost (`{"tokens", "flops"}`), the activations' forward not included.
        data_s: Seconds of the same, whenever it was made.
        forward_flops_per_token: Of the forward to the hookpoint; 0 without a model.
        forward_s: Seconds that the model took to fill the store, for all hookpoints that were filled together; 0 where
            rows are read live.
        rounding: What the storage precision loses (`precision.rounding`); None for float32.
    """

    dataset: str
    content: str
    manifest: Mapping[str, Any]
    token_policy: Mapping[str, Any] | None
    data_cost: Mapping[str, int]
    data_s: float
    forward_flops_per_token: int
    forward_s: float
    rounding: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, facts: Mapping[str, Any]) -> SourceFacts:
        """From a store's manifest."""
        return cls(**{name: facts[name] for name in cls.__dataclass_fields__})


class TrainingSource:
    """Training activations of one cohort.

    Attributes:
        d_in: Width.
        n_tokens: Distinct tokens (vectors); a longer training repeats them, freshly shuffled each epoch.
        dataset, content, manifest, token_policy, data_cost, data_s, forward_flops_per_token, forward_s, rounding: See
            `SourceFacts`.
        document_digests: Digests of the documents (or generated sequences) in it.
    """

    def __init__(
        self,
        rows: RowProvider,
        facts: SourceFacts,
        documents: frozenset[str],
        *,
        shuffle: int,
        prefetch: int,
    ) -> None:
        self.rows, self._shuffle, self._prefetch = rows, shuffle, prefetch
        self.d_in = rows.d
        self.n_tokens = rows.n_rows
        self.dataset = facts.dataset
        self.content = facts.content
        self.manifest: dict[str, Any] = dict(facts.manifest)
        self.token_policy = dict(facts.token_policy) if facts.token_policy is not None else None
        self.data_cost: dict[str, int] = dict(facts.data_cost)
        self.data_s, self.forward_s = facts.data_s, facts.forward_s
        self.forward_flops_per_token = facts.forward_flops_per_token
        self.rounding = dict(facts.rounding) if facts.rounding is not None else None
        self.document_digests = documents

    def init_sample(self, n: int) -> Tensor:
        """`[min(n, n_tokens), d_in]` float32: the first rows of the stream, from as many documents as they span."""
        return self.rows.head(n)

    def random_rows(self, n: int) -> Tensor:
        """`[min(n, n_tokens), d]` float32 on the CPU: what is to be written, of the first rows of a shuffled epoch."""
        n, size = min(n, self.n_tokens), min(_SAMPLE_BATCH, self.n_tokens)
        rows: list[Tensor] = []
        for batch in self.batches(size, _SAMPLE_SEED):
            rows.append(batch.target.float().cpu())
            if len(rows) * size >= n:
                break
        return torch.cat(rows)[:n]

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """Endless batches of exactly `batch` rows; every epoch is shuffled anew, and a batch may span two.

        Close the iterator when done: then what was kept for it is dropped. A `for` loop that is left closes it.

        Args:
            batch: Rows a batch.
            seed: Decides the order.
            start: Begin as if this many batches had been read and dropped.
        """
        if batch < 1:
            raise SuiteError(f"a batch has at least 1 token, got {batch}.")
        return shuffled_batches(self.rows, batch, seed, block=self._shuffle, start=start, prefetch=self._prefetch)
