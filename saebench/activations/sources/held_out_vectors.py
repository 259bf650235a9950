"""Held-out vectors of a dataset without a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench import console
from saebench.activations.sources.held_out_tokens import Scored
from saebench.activations.sources.validation_split import ASK, Part, vectors_of
from saebench.activations.store import ActivationStore
from saebench.api.batches import ActivationBatch
from saebench.api.codes import SparseCodes
from saebench.api.errors import SuiteError
from saebench.artifacts import digest

if TYPE_CHECKING:
    from saebench.activations.sources.sources import Sources
    from saebench.api.splits import Split
    from saebench.cells.cell import DatasetUse

VECTOR_ROWS = 4096
"""Rows asked of an activation dataset at a time."""


def demand_finite(batch: ActivationBatch, dataset: DatasetUse, split: Split, first: int) -> None:
    """Refuses values that are no numbers.

    Raises:
        SuiteError: With the number of the vector in the order that the plugin gives them in.
    """
    finite = torch.isfinite(batch.x).all(1)
    if not bool(finite.all()):
        raise SuiteError(
            f"dataset '{dataset.name}' (plugin {dataset.plugin}): {split} vector {first + int((~finite).nonzero()[0])} is not finite. Mend the data first."
        )


class ScoredVectors(Scored):
    """Held-out vectors of an activations or synthetic dataset."""

    def __init__(
        self,
        sources: Sources,
        dataset: DatasetUse,
        sizes: Mapping[str, int],
        seed: int,
        key: Mapping[str, Any],
        part: Part | None = None,
    ) -> None:
        super().__init__(dataset, sizes, seed, part)
        folder = sources.run.activations(digest(dict(key)))
        vectors = sources.open(dataset, seed=seed)
        self.dictionary = vectors.dictionary
        n_rows = self.n_rows
        if (store := sources.whole(folder, lambda checked: ActivationStore.open(folder, key, checked=checked))) is None:
            with (
                console.phase("held-out", dataset.name),
                ActivationStore.building(
                    folder,
                    key,
                    d=vectors.d_in,
                    dtype="float32",
                    expected_rows=n_rows if (there := vectors.n_tokens("held-out")) is None else min(n_rows, there),
                    what=f"held-out vectors of '{dataset.name}'",
                ) as writer,
            ):
                truths: list[SparseCodes] = []
                for batch in self._batches(vectors, writer.documents):
                    demand_finite(batch, dataset, "held-out", writer.n_rows)
                    writer.add(batch)
                    if batch.truth is not None:
                        truths.append(batch.truth)
                if writer.n_rows == 0:
                    what, other = (
                        ("held-out part", "")
                        if part is None
                        else (f"{part} part (of what is held out)", ", or leave `tune` out of the suite")
                    )
                    raise SuiteError(
                        f"dataset '{dataset.name}' (plugin {dataset.plugin}): its {what} is empty. Give it more vectors{other}."
                    )
                writer.extras = _joined(truths)
                content = writer.content()
                writer.facts = {
                    "content": content,
                    "manifest": dict(vectors.manifest()),
                    "n_features": truths[0].d_sae if truths else 0,
                }
            store = ActivationStore.open(folder, key, checked=True)
            assert store is not None
        self.store = store
        self.documents = store.documents if part is not None else frozenset()

    def _batches(self, vectors: Any, digests: set[str]) -> Iterator[ActivationBatch]:
        if self.part is None:
            yield from vectors.batches("held-out", self.n_rows, VECTOR_ROWS, self.seed)
            return
        there = vectors.n_tokens("held-out")
        asked = ASK[self.part] * self.n_rows if there is None else there
        yield from vectors_of(
            vectors.batches("held-out", asked, VECTOR_ROWS, self.seed), self.part, self.n_rows, digests
        )

    def absent(self) -> dict[str, str]:
        """Without a language model there are activations and nothing else."""
        reason = f"dataset '{self.dataset.name}' has no language model behind it"
        return {"loss": reason, "random-tokens": reason, "self-sampled": reason}

    def truth(self, start: int, stop: int) -> SparseCodes | None:
        """True codes, where the dataset knows them."""
        if not self.store.facts["n_features"]:
            return None
        values, latents, offsets = map(self.store.extra, ("values", "latents", "offsets"))
        codes = SparseCodes(values, latents, offsets, self.store.facts["n_features"]).slice(start, stop)
        return replace(codes, latents=codes.latents.long())


def _joined(truths: Sequence[SparseCodes]) -> dict[str, Tensor]:
    if not truths:
        return {}
    codes = SparseCodes.concatenate(truths)
    return {"values": codes.values, "latents": codes.latents.to(torch.int32), "offsets": codes.offsets}
