"""Held-out vectors of a dataset without a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench import console
from saebench.activations.sources.context import Meter
from saebench.activations.sources.held_out.shared_data import HeldOutData
from saebench.activations.sources.validation_split import ASKED, vectors_of
from saebench.activations.sources.vector_batches import VECTOR_ROWS, finite_batches
from saebench.activations.store import ActivationStore
from saebench.api.codes import SparseCodes
from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from saebench.activations.sources.context import Context
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.api.batches import ActivationBatch
    from saebench.cells.cell import DatasetUse


class HeldOutVectors(HeldOutData):
    """Vectors of an activations or synthetic dataset, with their true codes where it knows them."""

    def __init__(
        self,
        context: Context,
        dataset: DatasetUse,
        sizes: Mapping[str, int],
        seed: int,
        part: HeldOutPart | None,
        key: Mapping[str, Any],
    ) -> None:
        super().__init__(dataset, None, sizes, seed, part)
        vectors = context.vectors(dataset, seed, Meter())
        self.dictionary = vectors.dictionary
        self.store = context.store(key, partial(self._build, vectors, key))
        self.documents = self.store.documents if part is not None else frozenset()

    def _build(self, vectors: Any, key: Mapping[str, Any], folder: Path) -> None:
        there, what = vectors.n_tokens("held-out"), f"held-out vectors of '{self.dataset.name}'"
        expected = self.n_rows if there is None else min(self.n_rows, there)
        with (
            console.phase("held-out", self.dataset.name),
            ActivationStore.building(
                folder, key, d=vectors.d_in, dtype="float32", expected_rows=expected, what=what
            ) as writer,
        ):
            truths: list[SparseCodes] = []
            batches = self._batches(vectors, there, writer.documents)
            for batch in finite_batches(batches, self.dataset, "held-out"):
                writer.add(batch)
                if batch.truth is not None:
                    truths.append(batch.truth)
            if writer.n_rows == 0:
                raise SuiteError(self._empty())
            if truths:
                codes = SparseCodes.concatenate(truths)
                writer.extras = {"values": codes.values, "latents": codes.latents.int(), "offsets": codes.offsets}
            writer.facts = {
                "content": writer.content(),
                "manifest": dict(vectors.manifest()),
                "n_features": truths[0].d_sae if truths else 0,
            }

    def _batches(self, vectors: Any, there: int | None, digests: set[str]) -> Iterator[ActivationBatch]:
        if self.part is None:
            yield from vectors.batches("held-out", self.n_rows, VECTOR_ROWS, self.seed)
            return
        asked = ASKED[self.part] * self.n_rows if there is None else there
        batches = vectors.batches("held-out", asked, VECTOR_ROWS, self.seed)
        yield from vectors_of(batches, self.part, self.n_rows, digests)

    def _empty(self) -> str:
        whole = self.part is None
        what = "held-out part" if whole else f"{self.part} part (of what is held out)"
        other = "" if whole else ", or leave `tune` out of the suite"
        return (
            f"dataset '{self.dataset.name}' (plugin {self.dataset.plugin}): its {what} is empty. "
            f"Give it more vectors{other}."
        )

    def absent(self) -> dict[str, str]:
        """Without a language model there are activations and nothing else."""
        reason = f"dataset '{self.dataset.name}' has no language model behind it"
        return {"loss": reason, "random-tokens": reason, "self-sampled": reason}

    def truth(self, start: int, stop: int) -> SparseCodes | None:
        """True codes, where the dataset knows them."""
        n_features = self.store.facts["n_features"]
        if not n_features:
            return None
        values, latents, offsets = (self.store.extra(name) for name in ("values", "latents", "offsets"))
        codes = SparseCodes(values, latents, offsets, n_features).slice(start, stop)
        return replace(codes, latents=codes.latents.long())
