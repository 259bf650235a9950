"""Held-out tokens of a dataset through a language model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saebench import console
from saebench.activations.forward import fill
from saebench.activations.sources.context import Meter
from saebench.activations.sources.held_out.loss_windows import LossSet
from saebench.activations.sources.held_out.shared_data import HeldOutData
from saebench.activations.sources.token_windows import as_window, token_windows
from saebench.activations.sources.validation_split import part_of
from saebench.activations.store import ActivationStore, StoreWriter
from saebench.activations.tokens import sequence_digest
from saebench.api.errors import PluginError
from saebench.api.specs import resolve
from saebench.artifacts import digest
from saebench.base.random import generator
from saebench.cells.cell import DATA_VERSION

if TYPE_CHECKING:
    from saebench.activations.sources.context import Context
    from saebench.activations.sources.validation_split import HeldOutPart
    from saebench.api.metrics import Stream
    from saebench.cells.cell import DatasetUse, ModelUse

SELF_SAMPLES = 256
"""Sequences sampled at a time for stream `self-sampled`."""
FRUITLESS = 8
"""Rounds of samples that may bring nothing new before the stream uses what there is."""


class HeldOutTokens(HeldOutData):
    """Streams of a language model: dataset text, random tokens, the model's own samples, losses."""

    def __init__(
        self,
        context: Context,
        dataset: DatasetUse,
        model: ModelUse,
        sizes: Mapping[str, int],
        seed: int,
        part: HeldOutPart | None,
        key: Mapping[str, Any],
    ) -> None:
        super().__init__(dataset, model, sizes, seed, part)
        self._context, self._use = context, model
        self._lm = context.model(model)
        self.added = context.catalog.added_streams()
        self.store = context.store(key, partial(self._build, key))
        self.documents = self.store.documents
        self._stores: dict[str, ActivationStore] = {}
        self._losses: LossSet | None = None

    def _build(self, key: Mapping[str, Any], folder: Path) -> None:
        # A window's last token has no loss, so losses need a few windows more than as many activations would.
        length, losses = self._use.context, self.sizes["loss_tokens"]
        enough = max(self.n_rows, losses * (length + 3) // length + length)
        windows = token_windows(
            self._context, self.dataset, self._use, "held-out", enough, self.seed, Meter(), self.part
        )
        with console.phase("held-out", f"{self.dataset.name}: text"):
            ids, numbers = (torch.stack(part) for part in zip(*windows.numbered(), strict=True))
        expected, what = min(self.n_rows, windows.n_rows), f"held-out activations of '{self.dataset.name}'"
        with self._building(folder, key, expected, what) as writer:
            self._fill(writer, ids, self.n_rows, self.dataset.name, numbers)
            writer.documents = set(windows.documents)
            writer.extras |= {"windows": ids.to(torch.int32), "documents": numbers.to(torch.int32)}
            writer.facts = {"content": windows.content, "manifest": windows.manifest}

    def _building(self, folder: Path, key: Mapping[str, Any], expected_rows: int, what: str) -> Any:
        d = self._lm.facts.hookpoint(self._use.hookpoint).d
        return ActivationStore.building(folder, key, d=d, dtype="float32", expected_rows=expected_rows, what=what)

    def _fill(
        self, writer: StoreWriter, windows: Iterable[Tensor], n_rows: int, label: str, documents: Tensor | None = None
    ) -> None:
        fill(writer, self._lm, self._use.hookpoint, windows, n_rows, label, documents)

    def absent(self) -> dict[str, str]:
        """An encoder has neither losses nor samples."""
        if self._lm.causal:
            return {}
        reason = f"model '{self._use.id}': {self._lm.facts.no_losses}"
        return {"loss": reason, "self-sampled": reason}

    def splice(self) -> dict[str, Any] | None:
        """On which tokens splicing was shown to be exact; None before losses were read."""
        proof = self._lm.splicer(self._use.hookpoint).proof if self._lm.causal else None
        return None if proof is None else {"max_difference": 0.0, "sequences": proof.sequences, "tokens": proof.tokens}

    @property
    def folders(self) -> set[Path]:
        """Folders of the stores that it reads."""
        return {self.store.folder, *(store.folder for store in self._stores.values())}

    def stream_store(self, name: Stream, training_documents: frozenset[str]) -> ActivationStore:
        """Built when a stream is first read. Samples that are also training data are left out."""
        if name in ("eval", "density"):
            return self.store
        found = self._side_store(name, ())
        both = found.documents & training_documents if name == "self-sampled" else frozenset()
        return self._side_store(name, tuple(sorted(both))) if both else found

    def _side_store(self, name: str, without: Sequence[str]) -> ActivationStore:
        """Streams that do not depend on the dataset: all datasets of a model share them."""
        key = {
            "data_version": DATA_VERSION,
            "stream": name,
            "seed": self.seed,
            "tokens": self.sizes["density_tokens"],
            "model": self._use.digest,
            "hookpoint": self._use.hookpoint,
            "context": self._use.context,
            "special_ids": sorted(self._lm.special_ids),
            "without": list(without),
        }
        if self.part is not None and name == "self-sampled":
            key["part"] = self.part
        if name in self.added:
            _, spec = self.added[name]
            key |= {"metric": spec.name, "version": spec.version}
        code = digest(key)
        if code not in self._stores:
            self._stores[code] = self._context.store(key, partial(self._build_side, key, name, set(without)))
        return self._stores[code]

    def _build_side(self, key: Mapping[str, Any], name: str, without: set[str], folder: Path) -> None:
        n_rows = self.sizes["density_tokens"]
        with self._building(folder, key, n_rows, f"stream {name}") as writer:
            if name in self.added:
                windows = self._added_windows(name, n_rows)
            elif name == "random-tokens":
                windows = self._random_windows(n_rows)
            else:
                windows = self._samples(n_rows, without, writer.documents)
            self._fill(writer, windows, n_rows, name)

    def _added_windows(self, name: str, n_tokens: int) -> Iterator[Tensor]:
        """Sequences that a metric makes, until they hold `n_tokens` tokens that are not special."""
        stream, spec = self.added[name]
        sequences = resolve(stream.sequences)(self._lm, self._use.context, generator(self.seed, f"stream {name}"))
        count = 0
        for sequence in sequences:
            fits = isinstance(sequence, Tensor) and sequence.ndim == 1 and sequence.dtype == torch.int64
            if not fits or not bool(((sequence >= 0) & (sequence < self._lm.vocab_size)).all()):
                raise PluginError(
                    f"metric '{spec.name}': stream '{name}' must give token ids [length], int64, from 0 to "
                    f"{self._lm.vocab_size - 1}"
                )
            window = as_window(sequence, self._use.context, self._lm)
            count += int((~self._lm.special_mask(window)).sum())
            yield window
            if count >= n_tokens:
                return

    def _random_windows(self, n_tokens: int) -> Iterator[Tensor]:
        """BOS, then uniform ids that are not special."""
        width = self._use.context - 1
        allowed = torch.tensor([token for token in range(self._lm.vocab_size) if token not in self._lm.special_ids])
        bos, draws = torch.tensor([self._lm.bos_id]), generator(self.seed, "random-tokens")
        for _ in range(-(-n_tokens // width)):
            yield torch.cat([bos, allowed[torch.randint(len(allowed), (width,), generator=draws)]])

    def _samples(self, n_tokens: int, without: set[str], digests: set[str]) -> Iterator[Tensor]:
        """The model's own samples at temperature 1: none twice, none of the training data, none of another part."""
        draws = generator(self.seed, "self-sampled")
        count = fruitless = 0
        while count < n_tokens and fruitless < FRUITLESS:
            before = count
            for window in self._lm.sample(SELF_SAMPLES, self._use.context, temperature=1.0, top_p=1.0, generator=draws):
                code = sequence_digest(window)
                n = int((~self._lm.special_mask(window)).sum())
                other = self.part is not None and part_of(code) != self.part
                if n and code not in digests and code not in without and not other and count < n_tokens:
                    digests.add(code)
                    count += n
                    yield window
            fruitless = fruitless + 1 if count == before else 0

    def losses(self) -> LossSet | None:
        """Made when losses are first asked for."""
        if not self._lm.causal:
            return None
        if self._losses is None:
            splicer = self._lm.splicer(self._use.hookpoint)
            windows, documents = (self.store.extra(name).long() for name in ("windows", "documents"))
            self._losses = LossSet(splicer, windows, self.sizes["loss_tokens"], self.mean, documents)
        return self._losses

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token as text."""
        return self._lm.token_texts(ids)

    def cost(self, streams: Set[Stream]) -> dict[str, int]:
        """Activations take a forward to the hookpoint, samples a whole forward besides, losses four whole forwards."""
        near, whole = self._lm.facts.forward_flops_per_token(self._use.hookpoint), self._lm.forward_flops_per_token
        asked = {"eval": self.sizes["tokens"], "density": self.sizes["density_tokens"]}
        held_out = [min(size, self.store.n_rows) for name, size in asked.items() if name in streams]
        side = self.sizes["density_tokens"]
        work = [(max(held_out, default=0), near)]
        work += [(side, near)] * len(streams & {"random-tokens", *self.added})
        work += [(side, near), (side, whole)] * ("self-sampled" in streams)
        losses = self.losses() if "loss" in streams else None
        work += [(4 * losses.n_tokens, whole)] if losses is not None else []
        return {"tokens": sum(tokens for tokens, _ in work), "flops": sum(tokens * flops for tokens, flops in work)}
