"""What a dataset plugin opens, and what the harness hands it for that."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from saebench.api.splits import Split, document_digest
from saebench.base.text import shown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from saebench.api.batches import ActivationBatch


@dataclass(frozen=True)
class Document:
    """One text. `digest` is its identity; `name` says where it is, for error messages."""

    text: str
    name: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the folded text (`saebench.base.folding`)."""
        return document_digest(self.text)


class TextDataset(Protocol):
    """kind `text`: documents. The harness splits them into train and held-out by their digests."""

    def documents(self) -> Iterator[Document]:
        """All documents; the same in the same order at each call.

        A method with a parameter `split` is told which part is asked for, and may leave out documents of the other (a
        retrieval that ranks inside each part).
        """
        ...

    def manifest(self) -> Mapping[str, Any]:
        """JSON-ready facts for the record: sources, versions, counts, licence where known."""
        ...


class SplitDataset(Protocol):
    """A text dataset as another one reads it (`DatasetContext.dataset`)."""

    def documents(self, split: Split) -> Iterator[Document]:
        """Documents of one part, in the dataset's order."""
        ...

    def manifest(self) -> Mapping[str, Any]:
        """See `TextDataset`."""
        ...


class TokenDataset(Protocol):
    """kind `generated`: token sequences made for one model. The two splits never share a sequence."""

    def sequences(self, split: Split, n_tokens: int) -> Iterator[Tensor]:
        """Sequences `[length]` int64, BOS first, at least `n_tokens` non-special tokens in total."""
        ...

    def manifest(self) -> Mapping[str, Any]:
        """JSON-ready facts for the record."""
        ...


class ActivationDataset(Protocol):
    """kinds `activations` and `synthetic`: vectors without a language model."""

    d_in: int
    dictionary: Tensor | None
    """`[n_features, d_in]` unit rows where the truth is known, else None."""

    def n_tokens(self, split: Split) -> int | None:
        """How many vectors there are; None where they are made without end."""
        ...

    def batches(self, split: Split, n_tokens: int, batch: int, seed: int) -> Iterator[ActivationBatch]:
        """At most `n_tokens` vectors in batches of `batch`; the same for the same seed, another stream for another."""
        ...

    def manifest(self) -> Mapping[str, Any]:
        """JSON-ready facts for the record."""
        ...


class CostMeter(Protocol):
    """Where a dataset's own cost goes (`spent.data` of the record)."""

    def add(self, *, tokens: int = 0, flops: int = 0) -> None:
        """Count tokens made or read and floating-point operations spent."""
        ...


class TextModel(Protocol):
    """The language model as a dataset plugin sees it."""

    bos_id: int
    eos_id: int | None
    special_ids: frozenset[int]
    vocab_size: int
    context: int
    forward_flops_per_token: int

    def encode(self, text: str) -> list[int]:
        """Token ids of the text alone, without special tokens."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        ...

    def sample(
        self, n_sequences: int, length: int, *, temperature: float, top_p: float, generator: torch.Generator
    ) -> Tensor:
        """`[n_sequences, length]` int64 from BOS: position 0 is BOS; after an EOS the rest is EOS (padding)."""
        ...

    def hidden_mean(self, texts: Sequence[str]) -> Tensor:
        """`[len(texts), d_model]` mean last hidden state of each text (cut to the context): a plain dense embedding."""
        ...


class DatasetContext(Protocol):
    """Lazily handed to `DatasetSpec.open`."""

    seed: int
    """The data seed."""
    length: int
    """Context length, in tokens, that sequences are cut to."""
    meter: CostMeter

    @property
    def model(self) -> TextModel:
        """The language model; an error that says so where the entry has none."""
        ...

    def dataset(self, name: str) -> SplitDataset:
        """Another text dataset of the suite, by its name there."""
        ...

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """What `make` gives. It is made once: later runs read it from a file of this dataset's own (in a folder named
        by its recipe digest), proven to be what was written, and call `make` again where it is missing or damaged.

        Args:
            name: Of the file, such as `part/000001.bin`. Whatever decides the content beside the recipe belongs into
                it.
            make: Gives the content; equal bytes at every call.
        """
        ...

    def progress(self, total: int, label: str) -> Any:
        """A tqdm-like bar (context manager with `update(n)`) on standard error."""
        ...


def file_manifest(paths: Sequence[Path], root: Path) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file: the recipe of a dataset that reads files."""
    rows = []
    for path in paths:
        with path.open("rb") as file:
            rows.append(
                {
                    "name": shown(path.relative_to(root).as_posix() if path != root else path.name),
                    "bytes": path.stat().st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
            )
    return rows
