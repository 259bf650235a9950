"""Stand-ins for training and held-out data, of the right shapes: what a measurement of speed trains and scores on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saebench.activations.sources.held_out.loss_windows import LossBatch, LossSet
from saebench.activations.sources.held_out.streams import HeldOut
from saebench.activations.sources.training import TrainingSource
from saebench.api.batches import ActivationBatch
from saebench.api.metrics import STREAMS

if TYPE_CHECKING:
    from saebench.api.codes import SparseCodes
    from saebench.api.metrics import Stream
    from saebench.lm.model import LanguageModel


ROWS = 32_768
"""Rows that a stand-in holds: as many as an initialisation reads."""

DISTURBED = 1 << 28
"""Most memory that is gone through between two steps; caches are smaller."""


def wait(device: torch.device) -> None:
    """Until the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call."""
    wait(device)
    started = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - started


class StandInRows(TrainingSource):
    """Rows that a cell trains on; times its steps.

    Args:
        rows: `[R, d]` float32.
        device: Where batches are handed out.
        between: What a cell's neighbours in a pass do to the caches: called before each batch, outside of all times.

    Attributes:
        steps: For each reading of `batches`, the times at which the work on a batch began and the next one was asked
            for.
    """

    forward_flops_per_token = 0

    def __init__(self, rows: Tensor, device: torch.device, between: Callable[[], object] = lambda: None) -> None:
        self._rows, self._device, self._between = rows, device, between
        self.data_cost, self.data_s, self.forward_s = {"tokens": 0, "flops": 0}, 0.0, 0.0
        self.n_tokens = len(rows)
        self.steps: list[list[tuple[float, float]]] = []

    def init_sample(self, n: int) -> Tensor:
        """The first rows."""
        return self._rows[:n].to(self._device)

    def batches(self, batch: int, seed: int, start: int = 0) -> Iterator[ActivationBatch]:
        """Endless batches of rows drawn at random, gathered as from a store."""
        steps: list[tuple[float, float]] = []
        self.steps.append(steps)
        generator = torch.Generator().manual_seed(seed)
        while True:
            wait(self._device)
            self._between()
            began = time.perf_counter()
            x = self._rows[torch.randint(self.n_tokens, (batch,), generator=generator)].to(self._device)
            yield ActivationBatch(x, x)
            wait(self._device)
            steps.append((began, time.perf_counter()))


def disturb(n_bytes: int) -> Callable[[], object]:
    """Reads and writes so much memory, as the cells that train in turn with one do."""
    memory = torch.zeros(min(n_bytes, DISTURBED) // 4)
    return lambda: memory.add_(1.0)


class StandInStreams(HeldOut):
    """What `score_cell` reads, for a part of the tokens that a suite asks for.

    Args:
        rows: `[R, d]` float32; streams repeat them.
        sizes: Tokens by stream.
        lm: For losses and for the text of tokens; None without a model.
        losses: Windows of `sizes["loss"]` tokens, shared by all cells; None without.
        context: Tokens a sequence.
        truth, dictionary: Of a synthetic dataset: true codes of the rows, true features.
    """

    content = ""

    def __init__(
        self,
        rows: Tensor,
        sizes: Mapping[str, int],
        *,
        device: torch.device,
        lm: LanguageModel | None = None,
        losses: LossSet | None = None,
        context: int = 128,
        truth: SparseCodes | None = None,
        dictionary: Tensor | None = None,
    ) -> None:
        self._rows, self._sizes, self._device = rows, sizes, device
        self._lm, self._losses, self._context, self._truth = lm, losses, context, truth
        self.dictionary = dictionary if dictionary is None else dictionary.to(device)
        self.streams: frozenset[Stream] = frozenset(sizes)
        self.absent = {name: "not measured" for name in STREAMS if name not in sizes}
        self.n_tokens, self.n_density_tokens = sizes.get("eval", 0), sizes.get("density", 0)

    @property
    def n_loss_tokens(self) -> int:
        """Tokens on stream `loss`."""
        return self._losses.n_tokens if self._losses is not None else 0

    def stream(self, name: Stream, batch: int) -> Iterator[ActivationBatch]:
        """Batches of a stream."""
        size = self._sizes[name]
        for start in range(0, size, batch):
            index = torch.arange(start, min(start + batch, size))
            rows = index % len(self._rows)
            x = self._rows[rows].to(self._device)
            tokens: dict[str, Tensor] = {}
            if self._lm is not None:
                width = self._context - 1
                ids = rows % self._lm.vocab_size
                tokens = {"token_ids": ids, "positions": index % width + 1, "sequence_ids": index // width}
            truth = self._codes(int(rows[0]), len(rows)) if self._truth is not None and name == "eval" else None
            yield ActivationBatch(x, x, **{key: value.to(self._device) for key, value in tokens.items()}, truth=truth)

    def _codes(self, first: int, count: int) -> SparseCodes | None:
        """True codes of rows that follow one another; None where a batch goes around the end."""
        truth = self._truth
        return None if truth is None or first + count > truth.n_rows else truth.slice(first, first + count)

    def loss_batches(self) -> Iterator[LossBatch]:
        """Windows with losses."""
        if self._losses is not None:
            yield from self._losses.batches()

    def token_texts(self, ids: Iterable[int]) -> list[str]:
        """Each token as text."""
        return self._lm.token_texts(list(ids)) if self._lm is not None else []

    def splice(self) -> None:
        """Nothing is recorded."""

    def overlap(self) -> None:
        """No documents."""

    def cost(self, streams: Iterable[Stream]) -> dict[str, int]:
        """Not counted: only time is of interest."""
        return {"tokens": 0, "flops": 0}


def random_rows(n: int, d: int) -> Tensor:
    """`[n, d]` float32 of a standard normal law."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def random_windows(lm: LanguageModel, n: int, length: int) -> Tensor:
    """`[n, length]` int64: BOS, then ids that are not special."""
    allowed = torch.tensor([token for token in range(lm.vocab_size) if token not in lm.special_ids])
    generator = torch.Generator().manual_seed(0)
    ids = allowed[torch.randint(len(allowed), (n, length), generator=generator)]
    ids[:, 0] = lm.bos_id
    return ids
