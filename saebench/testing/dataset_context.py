"""What a dataset is opened with in a check: a stand-in of the run, its language model and its other datasets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from saebench.api import Document

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class StandInModel:
    """Of bytes: BOS, EOS, then one token a byte. Its samples are uniform, its hidden states noise made of the text."""

    bos_id, eos_id, special_ids = 0, 1, frozenset({0, 1})
    vocab_size, context, forward_flops_per_token, d_model = 258, 64, 1_000, 16

    def encode(self, text: str) -> list[int]:
        """One id a byte."""
        return [byte + 2 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """The other way round."""
        return bytes(number - 2 for number in ids if number >= 2).decode(errors="replace")

    def sample(
        self, n_sequences: int, length: int, *, temperature: float, top_p: float, generator: torch.Generator
    ) -> Tensor:
        """`[n_sequences, length]`: BOS and letters."""
        import torch

        drawn = torch.randint(99, 124, (n_sequences, length), generator=generator)
        drawn[:, 0] = self.bos_id
        return drawn

    def hidden_mean(self, texts: Sequence[str]) -> Tensor:
        """`[len(texts), d_model]`."""
        import torch

        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:7]) for text in texts]
        return torch.stack([torch.randn(self.d_model, generator=torch.Generator().manual_seed(s)) for s in seeds])


class _Texts:
    def documents(self, split: str = "train") -> Iterator[Document]:
        """Forty of them."""
        for number in range(40):
            yield Document(f"{split} document {number} says that {number * number} is a square. " * 5)

    def manifest(self) -> Mapping[str, Any]:
        """Nothing to say."""
        return {}


class _Meter:
    def add(self, *, tokens: int = 0, flops: int = 0) -> None:
        """Counted by runs alone."""


class _Bar:
    def update(self, n: int = 1) -> None:
        """Shown by runs alone."""


class StandInContext:
    """`saebench.api.DatasetContext`; `kept` is what an earlier opening kept."""

    seed, length = 0, 64

    def __init__(self, kept: dict[str, bytes] | None = None) -> None:
        self.model, self.meter = StandInModel(), _Meter()
        self._kept = {} if kept is None else kept

    def dataset(self, name: str) -> _Texts:
        """Another dataset."""
        return _Texts()

    def keep(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Kept in memory."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def progress(self, total: int, label: str) -> Any:
        """No bar."""
        return nullcontext(_Bar())
