"""What one cell is scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench.activations.sources.held_out_losses import LossBatch
from saebench.activations.store import to_device
from saebench.api.batches import ActivationBatch

if TYPE_CHECKING:
    from saebench.activations.sources.held_out_tokens import Scored
    from saebench.activations.sources.near_duplicates import NearDuplicates
    from saebench.activations.sources.training import TrainingSource
    from saebench.api.metrics import Stream


class EvaluationSource:
    """Held-out data of one dataset and evaluation seed, as one cell sees it.

    Attributes:
        dataset, recipe, content, manifest: What it is.
        seed: Evaluation seed.
        d_in: Width.
        n_tokens, n_density_tokens, n_loss_tokens: What the streams hold; less than asked for where the held-out part is short.
        streams, absent: Which streams exist, and why others do not.
        dictionary: `[n_features, d_in]` true features, or None.
    """

    def __init__(
        self, scored: Scored, training: TrainingSource | None, device: torch.device, near: NearDuplicates
    ) -> None:
        self._scored, self._training, self._device, self._near = scored, training, device, near
        self.dataset = scored.dataset.name
        self.recipe = scored.dataset.recipe
        self.content: str = scored.store.facts["content"]
        self.manifest: dict[str, Any] = scored.store.facts["manifest"]
        self.seed = scored.seed
        self.d_in = scored.store.d
        self.dictionary = None if scored.dictionary is None else scored.dictionary.to(device)
        self.absent: dict[str, str] = scored.absent()
        everything: tuple[Stream, ...] = ("eval", "density", "loss", "random-tokens", "self-sampled")
        self.streams: frozenset[Stream] = frozenset(name for name in everything if name not in self.absent)
        self.n_tokens = min(scored.sizes["tokens"], scored.store.n_rows)
        self.n_density_tokens = min(scored.sizes["density_tokens"], scored.store.n_rows)

    @property
    def n_loss_tokens(self) -> int:
        """Positions with a loss; 0 without losses."""
        losses = self._scored.losses()
        return losses.n_tokens if losses is not None else 0

    def overlap(self) -> dict[str, Any] | None:
        """Near-duplicates of its documents among the training documents (`saebench.api.Overlap`); None where there are no documents."""
        return self._scored.overlap(self._training, self._near) if self._training is not None else None

    def splice(self) -> dict[str, Any] | None:
        """On what splicing was shown to be exact (`saebench.lm.splicing_proof`); None where no losses were read."""
        return self._scored.splice()

    def stream(self, name: Stream, batch: int) -> Iterator[ActivationBatch]:
        """Batches of a stream of activations, in one fixed order; the last may be short. `eval` and `density` begin alike."""
        if name in self.absent or name == "loss":
            raise ValueError(
                f"stream '{name}' is not one of activations here: {self.absent.get(name, 'use loss_batches()')}"
            )
        store = self._scored.stream_store(name, self._training)
        limit = {"eval": self.n_tokens, "density": self.n_density_tokens}.get(name, store.n_rows)
        for start in range(0, limit, batch):
            stop = min(start + batch, limit)
            rows = store.slice(start, stop)
            truth = self._scored.truth(start, stop) if store is self._scored.store else None
            yield to_device(replace(rows, truth=truth) if truth is not None else rows, self._device)

    def loss_batches(self) -> Iterator[LossBatch]:
        """Windows with losses; nothing where stream `loss` is absent."""
        losses = self._scored.losses()
        if losses is not None:
            yield from losses.batches()

    def sequence(self, sequence_id: int) -> Tensor | None:
        """`[T]` ids of the window that `sequence_ids` of streams `eval`, `density` and `loss` name; None without tokens."""
        return self._scored.sequence(sequence_id)

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        """Each token as text; empty without tokens."""
        return self._scored.token_texts(list(ids))

    def cost(self, streams: Iterable[Stream]) -> dict[str, int]:
        """Work of the language model for these streams of one cell alone: `{"tokens", "flops"}`; zero without a model."""
        return self._scored.cost(set(streams) - self.absent.keys())
