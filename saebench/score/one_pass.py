"""One held-out pass: each thing that some metric needs is made once, for all of them."""

from __future__ import annotations

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
    ScoredBatch,
    ScoringFacts,
    SparseCodes,
    Stream,
    TrainingFacts,
)
from saebench.api.metrics import STREAMS, Field
from saebench.cells.cell import Cell
from saebench.score.canonical import in_16_bits
from saebench.score.isolate import Accumulator
from saebench.score.probes import Sample, denser
from saebench.score.runner import Runner

_ALIKE = 8
"""First tokens by which two streams are told to begin alike."""
_ROUNDED: Field = "reconstruction-16bit"


def batch_size(d_sae: int) -> int:
    """Tokens a scoring batch: a power of two from 256 to 4096; keeps dense pre-activations under 256 MiB if it can."""
    fits = max(1, (1 << 26) // d_sae)
    return max(256, min(4096, 1 << (fits.bit_length() - 1)))


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

    A sample of each stream is encoded and decoded again at its end (`saebench.score.probes`).

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
    watch = _Watch(runner)
    for batches in zip_longest(*(source.stream(name, size) for name in both)):
        shared: _Made | None = None
        for name, batch in zip(both, batches, strict=True):
            if batch is not None:
                made = shared if shared is not None and _same(shared.batch, batch) else _Made(batch)
                _feed(runner, name, made, metrics, firing if name == "density" else None)
                watch.saw(name, made)
                shared = made
    for name in read:
        if name == "loss":
            for losses in source.loss_batches():
                _feed_losses(runner, losses, metrics, watch)
        elif name not in both:
            for batch in source.stream(name, size):
                made = _Made(batch)
                _feed(runner, name, made, metrics)
                watch.saw(name, made)
    watch.end()
    return read


@dataclass
class _Made:
    """A batch and what was made of it so far."""

    batch: ActivationBatch
    codes: SparseCodes | None = None
    x_hat: Tensor | None = None
    sampled: bool = False


class _Watch:
    """Samples and counts the codes of one pass over one source."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._samples: dict[str, Sample] = {}
        self._l0: dict[str, list[Tensor]] = {"eval": [], "density": [], "loss": []}
        self._first: dict[str, Tensor] = {}

    def saw(self, stream: Stream, made: _Made) -> None:
        """A batch as it was scored. One that two streams share is sampled for the first."""
        if made.codes is None:
            return
        self._runner.findings.count(stream, made.codes)
        if stream in self._l0:
            self._l0[stream].append(made.codes.offsets.diff())
            self._first.setdefault(stream, made.batch.x[:_ALIKE])
        if not made.sampled:
            self._samples.setdefault(stream, Sample(stream)).take(made.batch.x, made.codes, made.x_hat)
            made.sampled = True

    def end(self) -> None:
        """Tries the samples, and compares the streams that begin with the same tokens.

        Raises:
            PluginError: Codes or reconstructions come from more than they should.
        """
        for sample in self._samples.values():
            self._runner.probe(sample)
        base = "eval" if self._l0["eval"] else "density"
        if self._l0[base] and self._l0["loss"] and _alike(self._first[base], self._first["loss"]):
            denser(torch.cat(self._l0[base]), torch.cat(self._l0["loss"]), self._runner.label)


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether two streams begin with the same tokens, each from a forward of its own."""
    n = min(len(a), len(b))
    return n > 0 and float((a[:n] - b[:n]).norm()) <= 0.01 * float(a[:n].norm())


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
    if made.codes is None and (fields & {"codes", "reconstruction", _ROUNDED, "truth"} or firing is not None):
        made.codes = runner.encode(made.batch.x)
    if made.x_hat is None and made.codes is not None and "reconstruction" in fields:
        made.x_hat = runner.decode(made.codes)
    scored = ScoredBatch(
        made.batch,
        made.codes if fields & {"codes", "truth"} else None,
        made.x_hat if "reconstruction" in fields else None,
        x_hat_16bit=runner.decode(in_16_bits(made.codes)) if made.codes is not None and _ROUNDED in fields else None,
    )
    for metric in readers:
        metric.update(stream, scored)
    if firing is not None and made.codes is not None:
        firing.update(made.codes)


def _feed_losses(runner: Runner, losses: LossBatch, metrics: Sequence[Accumulator], watch: _Watch) -> None:
    readers = _readers(metrics, "loss")
    fields = _fields(readers)
    xs = torch.split(losses.x, batch_size(runner.d_sae)) if fields else ()
    pieces = [runner.encode(x) for x in xs]
    hats = [runner.decode(piece) for piece in pieces] if fields & {"losses", "reconstruction"} else []
    for number, (x, piece) in enumerate(zip(xs, pieces, strict=True)):
        watch.saw("loss", _Made(ActivationBatch(x, x), piece, hats[number] if hats else None))
    codes = SparseCodes.concatenate(pieces).select(losses.rows) if fields & {"codes", "truth"} else None
    x_hat = torch.cat(hats) if hats else None
    rounded = torch.cat([runner.decode(in_16_bits(piece)) for piece in pieces]) if _ROUNDED in fields else None
    scored = ScoredBatch(
        losses.batch,
        codes,
        x_hat[losses.rows] if x_hat is not None and "reconstruction" in fields else None,
        losses.splice(x_hat) if x_hat is not None and "losses" in fields else None,
        None if rounded is None else rounded[losses.rows],
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
