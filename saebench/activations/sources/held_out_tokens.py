"""Held-out data of one dataset and evaluation seed, computed once and shared by all cells."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench import console
from saebench.activations.forward import fill
from saebench.activations.sources.context import Meter
from saebench.activations.sources.held_out_losses import LossSet
from saebench.activations.sources.validation_split import Part, part_of
from saebench.activations.store import ActivationStore, StoreWriter
from saebench.activations.tokens import sequence_digest
from saebench.api.codes import SparseCodes
from saebench.artifacts import digest
from saebench.base.random import generator

if TYPE_CHECKING:
    from saebench.activations.sources.near_duplicates import NearDuplicates
    from saebench.activations.sources.sources import Sources
    from saebench.activations.sources.training import TrainingSource
    from saebench.api.metrics import Stream
    from saebench.cells.cell import DatasetUse, ModelUse

SELF_SAMPLES = 256
"""Sequences sampled at a time for stream `self-sampled`."""
FRUITLESS = 8
"""Rounds of samples that may bring nothing new before the stream uses what there is."""


class Scored(ABC):
    """Held-out data for one evaluation seed, shared by all cells.

    Attributes:
        dataset: What it is.
        sizes: `tokens`, `density_tokens`, `loss_tokens` as asked for.
        seed: Evaluation seed.
        part: Of the held-out data; None: all of it.
        store: Activations behind streams `eval` and `density`.
        documents: Digests of the documents read.
        dictionary: True features, or None.
    """

    dictionary: Tensor | None = None
    documents: frozenset[str] = frozenset()
    store: ActivationStore

    def __init__(self, dataset: DatasetUse, sizes: Mapping[str, int], seed: int, part: Part | None) -> None:
        self.dataset, self.sizes, self.seed, self.part = dataset, sizes, seed, part
        self.n_rows = max(sizes["tokens"], sizes["density_tokens"])

    @abstractmethod
    def absent(self) -> dict[str, str]:
        """Streams that do not exist here, with reasons."""

    @property
    def folders(self) -> set[Path]:
        """Folders of the stores it reads."""
        return {self.store.folder}

    def stream_store(self, name: Stream, training: TrainingSource | None) -> ActivationStore:
        """The store behind a stream of activations."""
        return self.store

    def overlap(self, training: TrainingSource, near: NearDuplicates) -> dict[str, Any] | None:
        """Near-duplicates among the training documents, where there are documents."""
        return None

    def splice(self) -> dict[str, Any] | None:
        """On what splicing was shown to be exact, where there are losses."""
        return None

    def truth(self, start: int, stop: int) -> SparseCodes | None:
        """True codes of rows of the store, where they are known."""
        return None

    def losses(self) -> LossSet | None:
        """Windows with clean, zero and mean losses."""
        return None

    def cost(self, streams: Set[Stream]) -> dict[str, int]:
        """Work of the language model for these streams."""
        return {"tokens": 0, "flops": 0}

    def sequence(self, sequence_id: int) -> Tensor | None:
        """`[T]` ids of a window."""
        return None

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return []


class ScoredTokens(Scored):
    """Held-out tokens of a dataset through a language model."""

    def __init__(
        self,
        sources: Sources,
        dataset: DatasetUse,
        model: ModelUse,
        sizes: Mapping[str, int],
        seed: int,
        key: Mapping[str, Any],
        part: Part | None = None,
    ) -> None:
        super().__init__(dataset, sizes, seed, part)
        self.sources, self.model = sources, model
        self.lm = sources.model(model)
        self.store = self._open_or_build(key)
        self.documents = self.store.documents
        self._stores: dict[str, ActivationStore] = {}
        self._losses: LossSet | None = None

    def _open_or_build(self, key: Mapping[str, Any]) -> ActivationStore:
        folder = self.sources.run.activations(digest(dict(key)))
        n_rows = self.n_rows
        # A window's last token has no loss, so losses need a few windows more than as many activations would.
        enough = max(
            n_rows, self.sizes["loss_tokens"] * (self.model.context + 3) // self.model.context + self.model.context
        )
        if (
            store := self.sources.whole(folder, lambda checked: ActivationStore.open(folder, key, checked=checked))
        ) is None:
            windows = self.sources.windows(self.dataset, self.model, "held-out", enough, self.seed, Meter(), self.part)
            with console.phase("held-out", f"{self.dataset.name}: text"):
                ids = torch.stack(list(windows))
            d = self.lm.facts.hookpoint(self.model.hookpoint).d
            with ActivationStore.building(
                folder,
                key,
                d=d,
                dtype="float32",
                expected_rows=min(n_rows, windows.n_rows),
                what=f"held-out activations of '{self.dataset.name}'",
            ) as writer:
                self._fill(writer, ids, n_rows, self.dataset.name)
                writer.documents = windows.documents
                writer.extras["windows"] = ids.to(torch.int32)
                writer.facts = {"content": windows.content, "manifest": windows.manifest}
            store = ActivationStore.open(folder, key, checked=True)
            assert store is not None
        return store

    def _fill(self, writer: StoreWriter, windows: Iterable[Tensor], n_rows: int, label: str) -> None:
        fill(writer, self.lm, self.model.hookpoint, windows, n_rows, label)

    def absent(self) -> dict[str, str]:
        """An encoder has neither losses nor samples."""
        if self.lm.causal:
            return {}
        reason = f"model '{self.model.id}': {self.lm.facts.no_losses}"
        return {"loss": reason, "self-sampled": reason}

    def splice(self) -> dict[str, Any] | None:
        """The proof of the hookpoint, once its losses were read."""
        proof = self.lm.splicer(self.model.hookpoint).proof if self.lm.causal else None
        return None if proof is None else {"max_difference": 0.0, "sequences": proof.sequences, "tokens": proof.tokens}

    def overlap(self, training: TrainingSource, near: NearDuplicates) -> dict[str, Any] | None:
        """Near-duplicates among the training documents."""
        return near.between(training, self)

    @property
    def folders(self) -> set[Path]:
        """Folders of the stores it reads."""
        return {self.store.folder, *(store.folder for store in self._stores.values())}

    def stream_store(self, name: Stream, training: TrainingSource | None) -> ActivationStore:
        """Built when a stream is first read. Samples that also stand in the training data are left out."""
        if name in ("eval", "density"):
            return self.store
        found = self._side_store(name, ())
        theirs = training.document_digests if training is not None and name == "self-sampled" else frozenset()
        both = found.documents & theirs
        return self._side_store(name, tuple(sorted(both))) if both else found

    def _side_store(self, name: str, without: Sequence[str]) -> ActivationStore:
        """Streams that do not depend on the dataset: all datasets of a model share them."""
        n_rows = self.sizes["density_tokens"]
        key = {
            "stream": name, "seed": self.seed, "tokens": n_rows, "model": self.model.digest, "hookpoint": self.model.hookpoint,
            "context": self.model.context, "special_ids": sorted(self.lm.special_ids), "without": list(without), "data_version": 1,
        }  # fmt: skip
        if self.part is not None and name == "self-sampled":
            key["part"] = self.part
        code = digest(key)
        if code not in self._stores:
            folder = self.sources.run.activations(code)
            store = self.sources.whole(folder, lambda checked: ActivationStore.open(folder, key, checked=checked))
            if store is None:
                make = self._random_windows if name == "random-tokens" else self._sampled_windows
                d = self.lm.facts.hookpoint(self.model.hookpoint).d
                with ActivationStore.building(
                    folder, key, d=d, dtype="float32", expected_rows=n_rows, what=f"stream {name}"
                ) as writer:
                    self._fill(writer, make(n_rows, set(without), writer.documents), n_rows, name)
                store = ActivationStore.open(folder, key, checked=True)
                assert store is not None
            self._stores[code] = store
        return self._stores[code]

    def _random_windows(self, n_tokens: int, _without: set[str], _digests: set[str]) -> Iterator[Tensor]:
        """BOS, then uniform ids that are not special."""
        width = self.model.context - 1
        allowed = torch.tensor([token for token in range(self.lm.vocab_size) if token not in self.lm.special_ids])
        draws = generator(self.seed, "random-tokens")
        for _ in range(-(-n_tokens // width)):
            yield torch.cat(
                [torch.tensor([self.lm.bos_id]), allowed[torch.randint(len(allowed), (width,), generator=draws)]]
            )

    def _sampled_windows(self, n_tokens: int, without: set[str], digests: set[str]) -> Iterator[Tensor]:
        """The model's own samples at temperature 1: none twice, none of the training data, none of another part."""
        draws = generator(self.seed, "self-sampled")
        count = fruitless = 0
        while count < n_tokens and fruitless < FRUITLESS:
            before = count
            for window in self.lm.sample(SELF_SAMPLES, self.model.context, temperature=1.0, top_p=1.0, generator=draws):
                code = sequence_digest(window)
                n = int((~self.lm.special_mask(window)).sum())
                other = self.part is not None and part_of(code) != self.part
                if n and code not in digests and code not in without and not other and count < n_tokens:
                    digests.add(code)
                    count += n
                    yield window
            fruitless = fruitless + 1 if count == before else 0

    def losses(self) -> LossSet | None:
        """Built when losses are first asked for."""
        if not self.lm.causal:
            return None
        if self._losses is None:
            self._losses = LossSet(
                self.lm.splicer(self.model.hookpoint),
                self.store.extra("windows").long(),
                self.sizes["loss_tokens"],
                self.store.mean,
            )
        return self._losses

    def sequence(self, sequence_id: int) -> Tensor | None:
        """`[T]` ids of a held-out window."""
        return self.store.extra("windows")[sequence_id].long()

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return self.lm.token_texts(ids)

    def cost(self, streams: Set[Stream]) -> dict[str, int]:
        """Activations take a forward to the hookpoint; samples a whole forward besides; losses four (clean, spliced, zero, mean)."""
        near, whole = self.lm.facts.forward_flops_per_token(self.model.hookpoint), self.lm.forward_flops_per_token
        held_out = [
            min(self.sizes[size], self.store.n_rows)
            for size, name in (("tokens", "eval"), ("density_tokens", "density"))
            if name in streams
        ]
        side = self.sizes["density_tokens"]
        work = [(max(held_out, default=0), near)]
        work += [(side, near)] * ("random-tokens" in streams) + [(side, near), (side, whole)] * (
            "self-sampled" in streams
        )
        losses = self.losses() if "loss" in streams else None
        work += [(4 * losses.n_tokens, whole)] if losses is not None else []
        return {"tokens": sum(tokens for tokens, _ in work), "flops": sum(tokens * flops for tokens, flops in work)}
