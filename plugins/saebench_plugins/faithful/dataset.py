"""Dataset `faithful`: text that the language model wrote itself, from BOS alone.

Samples are made in chunks. Each chunk has a generator of its own, derived from seed, part and chunk number, and is kept
in a file of its own, so that a run that was stopped continues with the same samples. A sequence that came before is
dropped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebench.api import DatasetContext, Split, SuiteError
from saebench_plugins.faithful.plugin import FaithfulOptions

CHUNK = 256
"""Sequences a chunk. Fixed: another number would be another corpus."""
FRUITLESS = 8
"""Chunks in a row that may bring no new sequence before the model is said to repeat itself."""


def chunk_generator(seed: int, *parts: str | int) -> torch.Generator:
    """The generator of one chunk."""
    return torch.Generator().manual_seed(
        int.from_bytes(hashlib.sha256(repr(("faithful", seed, *parts)).encode()).digest()[:8], "big") >> 1
    )


class FaithfulSamples:
    """Samples of one model at one context length.

    The training corpus is decided by the options alone; held-out samples depend on the evaluation seed too, and leave
    out whatever the training corpus holds.
    """

    def __init__(self, options: FaithfulOptions, context: DatasetContext) -> None:
        self._options, self._context = options, context
        self._model = context.model
        self._special = torch.tensor(sorted(self._model.special_ids))
        self._counts: dict[str, dict[str, int]] = {}

    def sequences(self, split: Split, n_tokens: int) -> Iterator[Tensor]:
        """Distinct sequences with `n_tokens` non-special tokens in total; of the training part at most `tokens`.

        Raises:
            SuiteError: The model repeats itself so much that there are not enough distinct sequences.
        """
        if split == "train":
            yield from self._distinct("train", min(n_tokens, self._options.tokens), set(), metered=True)
            return
        trained = {_digest(ids) for ids in self._distinct("train", self._options.tokens, set(), metered=False)}
        yield from self._distinct(f"held-out-{self._context.seed}", n_tokens, trained, metered=True)

    def manifest(self) -> Mapping[str, Any]:
        """Options, and how many sequences were taken and dropped as repeats, by part."""
        parts = {name: dict(counts) for name, counts in sorted(self._counts.items())}
        return {
            "temperature": self._options.temperature,
            "top_p": self._options.top_p,
            "seed": self._options.seed,
            "length": self._context.length,
            "parts": parts,
        }

    def _distinct(self, part: str, n_tokens: int, taken: set[str], *, metered: bool) -> Iterator[Tensor]:
        seen = set(taken)
        counts = {"sequences": 0, "tokens": 0, "repeats": 0}
        if metered:
            self._counts[part] = counts
        number = fruitless = 0
        with self._context.progress(n_tokens, part) as bar:
            while counts["tokens"] < n_tokens:
                before = counts["sequences"]
                for ids in self._chunk(part, number):
                    real = int((~torch.isin(ids, self._special)).sum())
                    if metered:
                        self._pay(ids)
                    code = _digest(ids)
                    if real == 0 or code in seen:
                        counts["repeats"] += 1
                        continue
                    seen.add(code)
                    counts["sequences"] += 1
                    counts["tokens"] += real
                    bar.update(real)
                    yield ids
                    if counts["tokens"] >= n_tokens:
                        break
                number += 1
                fruitless = fruitless + 1 if counts["sequences"] == before else 0
                if fruitless == FRUITLESS:
                    raise SuiteError(
                        f"dataset faithful: the model repeats itself: {number * CHUNK} samples hold only "
                        f"{counts['tokens']} tokens of distinct sequences, {n_tokens} are asked for. "
                        "Raise the temperature or top_p, or ask for fewer tokens."
                    )

    def _pay(self, ids: Tensor) -> None:
        """The work this sequence needed: a forward for every token that was sampled, the ending EOS included."""
        ends = (ids[1:] == self._model.eos_id).nonzero() if self._model.eos_id is not None else torch.empty(0)
        sampled = int(ends[0]) + 1 if len(ends) else len(ids) - 1
        self._context.meter.add(tokens=sampled, flops=sampled * self._model.forward_flops_per_token)

    def _chunk(self, part: str, number: int) -> Tensor:
        """`[CHUNK, length]` int64, from its file or sampled."""
        length, options = self._context.length, self._options

        def sampled() -> bytes:
            ids = self._model.sample(
                CHUNK,
                length,
                temperature=options.temperature,
                top_p=options.top_p,
                generator=chunk_generator(options.seed, part, number),
            )
            return ids.to(torch.int32).numpy().tobytes()

        data = self._context.keep(f"{part}-{length}/{number:06d}.bin", sampled)
        return torch.from_numpy(np.frombuffer(data, dtype="<i4").reshape(CHUNK, length).astype(np.int64))


def _digest(ids: Tensor) -> str:
    return hashlib.sha256(ids.to(torch.int32).numpy().tobytes()).hexdigest()


def open_faithful(options: FaithfulOptions, context: DatasetContext) -> FaithfulSamples:
    """Samples nothing yet."""
    return FaithfulSamples(options, context)
