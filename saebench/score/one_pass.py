"""One held-out pass: each thing that some metric needs is made once, for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from saebench.activations.sources.held_out.loss_windows import LossBatch
from saebench.activations.sources.held_out.streams import HeldOut
from saebench.api import (
    ActivationBatch,
    MetricContext,
    PluginError,
    ScoredBatch,
    ScoringFacts,
    SparseCodes,
    Stream,
    TrainingFacts,
)
from saebench.api.errors import DIVERGED_ADVICE, Diverged, NotFinite, contained, describe
from saebench.api.metrics import STREAMS
from saebench.cells.cell import Cell
from saebench.host.sae_contract import normalise_codes
from saebench.score.isolate import Accumulator


def batch_size(d_sae: int) -> int:
    """Tokens a scoring batch: a power of two from 256 to 4096; keeps dense pre-activations under 256 MiB if it can."""
    fits = max(1, (1 << 26) // d_sae)
    return max(256, min(4096, 1 << (fits.bit_length() - 1)))


class Runner:
    """Encodes and decodes for scoring: times the encoder, checks the contract, counts who fires.

    Args:
        sae: In inference form.
        d_out: Width it writes.
        facts: Filled while running.
        label: Named in errors.
    """

    def __init__(self, sae: Any, d_out: int, facts: ScoringFacts, label: str) -> None:
        self.sae, self.d_out, self.facts, self.label = sae, d_out, facts, label
        self.d_sae = int(sae.d_sae)

    def encode(self, x: Tensor) -> SparseCodes:
        """Checked codes of `x [B, d_in]`.

        Raises:
            Diverged: They are not finite.
            PluginError: They are no codes.
        """
        _wait(x)
        started = time.perf_counter()
        answer = self._call("encode", x)
        _wait(x)
        self.facts.encode_s += time.perf_counter() - started
        self.facts.encoded_tokens += x.shape[0]
        try:
            return normalise_codes(answer, self.d_sae, n_rows=x.shape[0], plugin=self.label)
        except NotFinite as error:
            raise Diverged(f"{error}. {DIVERGED_ADVICE}") from error

    def decode(self, codes: SparseCodes) -> Tensor:
        """Checked reconstruction `[B, d_out]`.

        Raises:
            Diverged: It is not finite.
            PluginError: It is no reconstruction.
        """
        x_hat = self._call("decode", codes)
        if not isinstance(x_hat, Tensor) or x_hat.shape != (codes.n_rows, self.d_out):
            found = list(x_hat.shape) if isinstance(x_hat, Tensor) else type(x_hat).__name__
            raise PluginError(f"{self.label}: decode must return [{codes.n_rows}, {self.d_out}], got {found}")
        if not bool(torch.isfinite(x_hat).all()):
            raise Diverged(f"{self.label}: decode returned values that are not finite. {DIVERGED_ADVICE}")
        return x_hat

    def _call(self, method: str, argument: Tensor | SparseCodes) -> Any:
        try:
            with contained():
                return getattr(self.sae, method)(argument)
        except (PluginError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise PluginError(f"{self.label}: {method} raised {describe(error)}") from error


def _wait(x: Tensor) -> None:
    if x.device.type == "cuda":
        torch.cuda.synchronize(x.device)


class Firing:
    """Counts on how many tokens each latent fires: `density [d_sae]`, float64."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None
        self._n = 0

    def update(self, codes: SparseCodes) -> None:
        """Takes the codes of B tokens."""
        fired = codes.firings()
        self._counts = fired if self._counts is None else self._counts + fired
        self._n += codes.n_rows

    def density(self) -> Tensor | None:
        """None where no token was seen."""
        return self._counts.double() / self._n if self._counts is not None and self._n else None


def run_pass(
    runner: Runner, source: HeldOut, metrics: Sequence[Accumulator], *, firing: Firing | None = None
) -> list[Stream]:
    """Feeds every stream of one source that some metric reads.

    Codes are made once a batch and shared by the streams `eval` and `density`, which are prefixes of one order of
    tokens; reconstructions only where a metric asks for them. With `firing`, stream `density` is read in any case.

    Returns:
        The streams that were read.
    """
    size = batch_size(runner.d_sae)
    asked = {name for metric in metrics for name in metric.spec.streams if metric.reads(name)}
    if firing is not None:
        asked.add("density")
    known = (*STREAMS, *sorted(asked - set(STREAMS)))
    read: list[Stream] = [name for name in known if name in asked and name in source.streams]
    both: list[Stream] = [name for name in read if name in ("eval", "density")]
    for batches in zip_longest(*(source.stream(name, size) for name in both)):
        shared: _Made | None = None
        for name, batch in zip(both, batches, strict=True):
            if batch is not None:
                made = shared if shared is not None and _same(shared.batch, batch) else _Made(batch)
                _feed(runner, name, made, metrics, firing if name == "density" else None)
                shared = made
    for name in read:
        if name == "loss":
            for losses in source.loss_batches():
                _feed_losses(runner, losses, metrics)
        elif name not in both:
            for batch in source.stream(name, size):
                _feed(runner, name, _Made(batch), metrics)
    return read


@dataclass
class _Made:
    """A batch and what was made of it so far."""

    batch: ActivationBatch
    codes: SparseCodes | None = None
    x_hat: Tensor | None = None


def _readers(metrics: Sequence[Accumulator], stream: Stream) -> list[Accumulator]:
    return [metric for metric in metrics if metric.reads(stream)]


def _fields(readers: Sequence[Accumulator]) -> set[str]:
    return {field for metric in readers for field in metric.spec.fields}


def _same(a: ActivationBatch, b: ActivationBatch) -> bool:
    return a.x is b.x or (a.x.shape == b.x.shape and bool(torch.equal(a.x, b.x)))


def _feed(
    runner: Runner, stream: Stream, made: _Made, metrics: Sequence[Accumulator], firing: Firing | None = None
) -> None:
    readers = _readers(metrics, stream)
    fields = _fields(readers)
    if made.codes is None and (fields & {"codes", "reconstruction", "truth"} or firing is not None):
        made.codes = runner.encode(made.batch.x)
    if made.x_hat is None and made.codes is not None and "reconstruction" in fields:
        made.x_hat = runner.decode(made.codes)
    scored = ScoredBatch(
        made.batch,
        made.codes if fields & {"codes", "truth"} else None,
        made.x_hat if "reconstruction" in fields else None,
    )
    for metric in readers:
        metric.update(stream, scored)
    if firing is not None and made.codes is not None:
        firing.update(made.codes)


def _feed_losses(runner: Runner, losses: LossBatch, metrics: Sequence[Accumulator]) -> None:
    readers = _readers(metrics, "loss")
    fields = _fields(readers)
    pieces = [runner.encode(x) for x in torch.split(losses.x, batch_size(runner.d_sae))] if fields else []
    codes = SparseCodes.concatenate(pieces).select(losses.rows) if fields & {"codes", "truth"} else None
    x_hat = torch.cat([runner.decode(piece) for piece in pieces]) if fields & {"losses", "reconstruction"} else None
    scored = ScoredBatch(
        losses.batch,
        codes,
        x_hat[losses.rows] if x_hat is not None and "reconstruction" in fields else None,
        losses.splice(x_hat) if x_hat is not None and "losses" in fields else None,
    )
    for metric in readers:
        metric.update("loss", scored)


def metric_context(
    cell: Cell, sae: Any, source: HeldOut, training: TrainingFacts, facts: ScoringFacts
) -> MetricContext:
    """What a metric is told of the cell and of one source before it reads."""
    return MetricContext(
        sae,
        cell.d_in,
        int(sae.d_sae),
        frozenset(cell.tags),
        source.streams,
        source.absent,
        training,
        facts,
        source.dictionary,
    )
