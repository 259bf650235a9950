"""The held-out streams that one cell is scored on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saebench.activations.store import to_device
from saebench.api.metrics import STREAMS

if TYPE_CHECKING:
    import torch

    from saebench.activations.sources.held_out.loss_windows import LossBatch
    from saebench.activations.sources.held_out.near_duplicates import NearDuplicates
    from saebench.activations.sources.held_out.shared_data import HeldOutData
    from saebench.activations.sources.training import TrainingSource
    from saebench.api.batches import ActivationBatch
    from saebench.api.metrics import Stream


class HeldOut:
    """Held-out data of one dataset and evaluation seed, as one cell sees it.

    Attributes:
        shared: The data itself.
        content: Digest of what was read.
        n_tokens, n_density_tokens, n_loss_tokens: What the streams hold; less than asked for where the data is short.
        streams, absent: Which streams exist, and why others do not.
        dictionary: `[n_features, d_in]` true features, or None.
    """

    def __init__(
        self, shared: HeldOutData, training: TrainingSource | None, device: torch.device, near: NearDuplicates
    ) -> None:
        self.shared, self._training, self._device, self._near = shared, training, device, near
        self.content: str = shared.store.facts["content"]
        self.dictionary = None if shared.dictionary is None else shared.dictionary.to(device)
        self.absent: dict[str, str] = shared.absent()
        self.streams: frozenset[Stream] = frozenset({*STREAMS, *shared.added} - self.absent.keys())
        self.n_tokens = min(shared.sizes["tokens"], shared.store.n_rows)
        self.n_density_tokens = min(shared.sizes["density_tokens"], shared.store.n_rows)

    @property
    def n_loss_tokens(self) -> int:
        """Positions with a loss; 0 without losses."""
        losses = self.shared.losses()
        return losses.n_tokens if losses is not None else 0

    def overlap(self) -> dict[str, Any] | None:
        """`saebench.api.Overlap` of its documents with the training documents; None where there are no documents."""
        return self._near.between(self._training, self.shared) if self._training is not None else None

    def splice(self) -> dict[str, Any] | None:
        """On which tokens splicing was shown to be exact (`saebench.lm.splicing`); None where no losses were read."""
        return self.shared.splice()

    def stream(self, name: Stream, batch: int) -> Iterator[ActivationBatch]:
        """Batches of a stream, in a fixed order; the last may be short. `eval` and `density` begin alike."""
        if name in self.absent or name == "loss":
            reason = self.absent.get(name, "use loss_batches()")
            raise ValueError(f"stream '{name}' is not one of activations here: {reason}")
        theirs = self._training.document_digests if self._training is not None else frozenset()
        store = self.shared.stream_store(name, theirs)
        limit = {"eval": self.n_tokens, "density": self.n_density_tokens}.get(name, store.n_rows)
        for start in range(0, limit, batch):
            stop = min(start + batch, limit)
            rows = store.slice(start, stop)
            truth = self.shared.truth(start, stop) if store is self.shared.store else None
            yield to_device(replace(rows, truth=truth) if truth is not None else rows, self._device)

    def loss_batches(self) -> Iterator[LossBatch]:
        """Windows with losses; nothing where stream `loss` is absent."""
        losses = self.shared.losses()
        if losses is not None:
            yield from losses.batches()

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        """Each token as text; empty without tokens."""
        return self.shared.token_texts(list(ids))

    def cost(self, streams: Iterable[Stream]) -> dict[str, int]:
        """Work of the language model for these streams of this cell alone: `{"tokens", "flops"}`; 0 without a model."""
        return self.shared.cost(set(streams) - self.absent.keys())
