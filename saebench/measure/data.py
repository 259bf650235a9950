"""Short measurements of what cells are fed with: forwards, losses, samples, reading, writing. Nothing is kept."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from saebench.activations.sources.context import Context, Meter
from saebench.activations.sources.held_out.loss_windows import LossSet
from saebench.api import SparseCodes
from saebench.artifacts import RunFolder
from saebench.cells.cell import DatasetUse
from saebench.host import Catalog
from saebench.measure.stand_ins import ROWS, random_windows, timed, wait
from saebench.plan.forecast.rates import DatasetRate, ModelRate

if TYPE_CHECKING:
    from torch import Tensor

    from saebench.lm.model import LanguageModel

SAMPLE_ROWS = 256
SAMPLE_S = 3.0
"""Sequences are sampled for about this long."""
READ_S = 4.0
"""Documents are read for at most this long, counted from the first."""
TEXTS = 256
VECTOR_ROWS = 4096
WRITTEN = 1 << 25

Vectors = tuple["Tensor", SparseCodes | None, "Tensor | None"]
"""Rows, their true codes, the true features."""


def loss_set(lm: LanguageModel, hookpoint: str, n_tokens: int, context: int, d: int) -> LossSet:
    """Random windows that hold `n_tokens` losses."""
    windows = random_windows(lm, 1 + -(-n_tokens // max(1, context - 2)), context)
    return LossSet(lm.splicer(hookpoint), windows, n_tokens, torch.zeros(d))


def measure_model(lm: LanguageModel, hookpoint: str, context: int, *, samples: bool) -> ModelRate:
    """Forwards, losses and, where they are needed, samples."""
    device = lm.device
    ids = random_windows(lm, lm.rows_per_forward(context), context)
    flops = ids.numel() * lm.facts.forward_flops_per_token(hookpoint)
    lm.activations(ids, hookpoint)
    flop_s = statistics.median(timed(lambda: lm.activations(ids, hookpoint), device) for _ in range(3)) / flops
    whole = lm.facts.forward_flops_per_token() * flop_s
    if not lm.causal:
        return ModelRate(flop_s, 3 * whole, whole, 3 * whole)
    d = lm.facts.hookpoint(hookpoint).d
    tokens = 2 * lm.rows_per_forward(context, logits=True) * (context - 1)
    for _ in loss_set(lm, hookpoint, tokens // 2, context, d).batches():
        pass  # warms up; the splicer looks once whether the short way holds
    losses = loss_set(lm, hookpoint, tokens, context, d)
    loss_s = timed(lambda: list(map(id, losses.batches())), device) / losses.n_tokens
    clean = ids[: lm.rows_per_forward(context, logits=True)]
    clean_s = timed(lambda: lm.splicer(hookpoint).clean(clean), device) / clean.numel()
    sample_s = sampling_s(lm, context) if samples else 3 * whole
    return ModelRate(flop_s, sample_s, clean_s, loss_s)


def sampling_s(lm: LanguageModel, context: int) -> float:
    """Seconds of one sampled token that is not special, when whole sequences are sampled."""
    generator = torch.Generator().manual_seed(0)
    starts: list[float] = []

    def draw(length: int) -> Tensor:
        starts.clear()
        return lm.sample(SAMPLE_ROWS, length, temperature=1.0, top_p=1.0, generator=generator)

    def note(*_: object) -> None:
        wait(lm.device)
        starts.append(time.perf_counter())

    draw(2)
    length = min(context, max(8, int(SAMPLE_S / (timed(lambda: draw(4), lm.device) / 3))))
    handle = lm.model.register_forward_pre_hook(note)
    try:
        sampled = draw(length)
        note()
    finally:
        handle.remove()
    gaps = [after - before for before, after in pairwise(starts)]
    real = (~lm.special_mask(sampled.to(lm.device)))[:, 1:].float().sum(0) / SAMPLE_ROWS
    seconds, tokens = sum(gaps), float(real.sum())
    if length < context and len(gaps) == length - 1:
        # a step takes longer the more tokens precede it; and sequences that have not ended end at the same rate
        seconds += sum(_line(gaps[1:], place - 1) for place in range(length - 1, context - 1))
        left = float(real[-1])
        kept = left ** (1 / (length - 1)) if left > 0 else 0.0
        tokens += sum(left * kept**step for step in range(1, context - length + 1))
    return seconds / (SAMPLE_ROWS * max(tokens, 1.0))


def _line(values: Sequence[float], place: int) -> float:
    """The line through values at 0, 1, ..., never falling, read at `place`; by medians (Theil-Sen)."""
    half = len(values) // 2
    slopes = [(values[i + half] - values[i]) / half for i in range(len(values) - half)] if half else [0.0]
    slope = max(0.0, statistics.median(slopes))
    return statistics.median(value - slope * i for i, value in enumerate(values)) + slope * place


def measure_reading(
    use: DatasetUse,
    lm: LanguageModel,
    context: int,
    datasets: Mapping[str, DatasetUse],
    run: RunFolder,
    catalog: Catalog,
) -> DatasetRate:
    """Reads a text dataset twice (the second time from its cache) and turns some of it into tokens."""
    data = Context(datasets, run, catalog, torch.device("cpu"), lambda line: None)
    texts: list[str] = []

    def read(limit_s: float) -> tuple[float, bool]:
        started = time.perf_counter()
        opened = data.open(use, model=lambda: lm, seed=0, length=context, meter=Meter())
        first: float | None = None
        for document in opened.documents("train"):
            now = time.perf_counter()
            first = now if first is None else first  # the first may wait for the whole corpus to be made
            if len(texts) < TEXTS:
                texts.append(document.text)
            if now - first > limit_s:
                return now - started, False
        return time.perf_counter() - started, True

    first_s, whole = read(READ_S)
    again_s, _ = read(READ_S)
    seconds = 0.0
    tokens = 0
    for text in texts:
        started = time.perf_counter()
        tokens += len(lm.encode_many([text])[0])
        seconds += time.perf_counter() - started
        if seconds > 0.5:
            break
    return DatasetRate(first_s, again_s, seconds / max(1, tokens), whole)


def measure_vectors(
    use: DatasetUse, datasets: Mapping[str, DatasetUse], run: RunFolder, catalog: Catalog
) -> tuple[DatasetRate, Vectors]:
    """Opens a dataset of vectors and takes some of them, with their true codes where it has them."""
    data = Context(datasets, run, catalog, torch.device("cpu"), lambda line: None)
    started = time.perf_counter()
    opened = data.open(use, model=None, seed=0, length=0, meter=Meter())
    rows = iter(opened.batches("train", ROWS, VECTOR_ROWS, 0))
    first = next(rows)
    opened_s = time.perf_counter() - started
    started = time.perf_counter()
    batches = [first, *islice(rows, ROWS // VECTOR_ROWS - 1)]
    seconds = time.perf_counter() - started
    count = sum(batch.n_tokens for batch in batches[1:])
    token_s = seconds / count if count else opened_s / first.n_tokens
    truths = [batch.truth for batch in batches if batch.truth is not None]
    truth = SparseCodes.concatenate(truths) if len(truths) == len(batches) else None
    x = torch.cat([batch.x for batch in batches])
    return DatasetRate(opened_s, opened_s, token_s), (x, truth, opened.dictionary)


def measure_disk(folder: Path) -> float:
    """Seconds of hashing and writing a byte below `folder`."""
    data = torch.zeros(WRITTEN, dtype=torch.uint8).numpy().data
    path = folder / "written.bin"
    started = time.perf_counter()
    with path.open("wb") as file:
        file.write(data)
        hashlib.sha256(data).digest()
        file.flush()
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    with suppress(OSError):
        path.unlink()
    return seconds / WRITTEN
