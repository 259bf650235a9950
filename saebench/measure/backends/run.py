"""How fast each numeric back end takes a training step here: one process each, interleaved rounds. Loads no torch."""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench import console
from saebench.api.errors import MachineError, PluginError
from saebench.measure.backends.choice import Choice
from saebench.measure.backends.shapes import Shape, refusal

FEWEST, WARM, WARM_S = 3, 30, 4.0
"""Steps before anything is timed, as many as take WARM_S: a selection costs less with trained weights."""
TURN, TURN_S = (2, 20), 0.4
"""Fewest and most steps of a turn, of about TURN_S together."""
START_FLOPS = 2e11
"""What starting a process counts in the progress bar."""


@dataclass(frozen=True)
class Timing:
    """One back end at one shape. With `failed`, why it was not measured, and nothing else.

    Attributes:
        rounds_s: Seconds of a training step, the median of each round's turn.
        product_rounds_s: The same of the encoder product alone.
        fallback_rows: Mean share of tokens that the screen could not decide; None where the architecture does not tell.
        peak_bytes: Memory that building and stepping took, in a process of its own (CUDA: tensors on the device).
    """

    backend: str
    rounds_s: tuple[float, ...] = ()
    product_rounds_s: tuple[float, ...] = ()
    fallback_rows: float | None = None
    peak_bytes: int | None = None
    failed: str | None = None

    @property
    def step_s(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.rounds_s)

    @property
    def product_s(self) -> float:
        """Median over the rounds."""
        return statistics.median(self.product_rounds_s)

    @property
    def spread(self) -> float:
        """How far rounds lie apart: their range without the slowest, over their median."""
        ordered = sorted(self.rounds_s)
        kept = ordered[:-1] if len(ordered) > 2 else ordered
        return (kept[-1] - kept[0]) / self.step_s

    def is_faster_than(self, other: Timing) -> bool:
        """True when it took less time in at least four rounds of five."""
        ratios = [own / its for own, its in zip(self.rounds_s, other.rounds_s, strict=True)]
        return sum(ratio < 1 for ratio in ratios) >= 0.8 * len(ratios)

    def against(self, other: Timing) -> float:
        """Its time over the other's: the median of the rounds' ratios."""
        return statistics.median(own / its for own, its in zip(self.rounds_s, other.rounds_s, strict=True))


@dataclass(frozen=True)
class Measured:
    """All back ends at one shape."""

    shape: Shape
    timings: tuple[Timing, ...]


def measure(
    shapes: Sequence[Shape],
    names: Sequence[str],
    *,
    device: str,
    rounds: int,
    threads: int,
    plugins: Sequence[Path] = (),
    advance: Callable[[Shape, float], object] = lambda shape, done: None,
) -> Iterator[Measured]:
    """Measures shape after shape.

    Args:
        shapes: They fit into memory (`refusal`).
        names: Back ends.
        device: Where steps are taken.
        rounds: Each back end takes one turn in each; who begins moves on by one from round to round.
        threads: Of each process. While one works, the others wait.
        plugins: Local plugin files.
        advance: Told of each piece of work, as a share of the shape's.

    Raises:
        PluginError: No back end could be measured at some shape.
    """
    for shape in shapes:
        job = {
            "shape": {
                "part": dataclasses.asdict(shape.part), "d_in": shape.d_in, "d_sae": shape.d_sae,
                "train": dataclasses.asdict(shape.train)
            },
            "device": device, "threads": threads, "plugins": [str(path) for path in plugins],
        }  # fmt: skip
        with ExitStack() as stack:
            workers = [stack.enter_context(_worker(name, job, threads)) for name in names]
            _measure_shape(workers, rounds, lambda done, shape=shape: advance(shape, done))  # type: ignore[misc]
            timings = tuple(worker.timing() for worker in workers)
        if all(timing.failed for timing in timings):
            raise PluginError(f"{shape.title}: {timings[0].failed}")
        yield Measured(shape, timings)


def work(shape: Shape) -> float:
    """What a shape counts in a progress bar, in FLOPs or so."""
    return START_FLOPS + shape.step_flops


def _measure_shape(workers: Sequence[_Worker], rounds: int, advance: Callable[[float], object]) -> None:
    piece = 1 / (len(workers) * (rounds + 2))
    slowest = 0.0
    for worker in workers:
        if worker.ask(None) is not None:
            slowest = max(slowest, statistics.median(worker.seconds("steps", FEWEST) or [0.0]))
        advance(piece)
    for worker in workers:
        worker.seconds("steps", _times(WARM_S, slowest, FEWEST, WARM))
        advance(piece)
    n = _times(TURN_S, slowest, *TURN)
    for index in range(rounds):
        shift = index % len(workers)
        for worker in [*workers[shift:], *workers[:shift]]:
            worker.turn(n)
            advance(piece)
    for worker in workers:
        worker.facts = worker.ask({"do": "facts"}) or {}


def _times(wanted_s: float, one_s: float, fewest: int, most: int) -> int:
    return max(fewest, min(most, int(wanted_s / max(one_s, 1e-9))))


class _Worker:
    """The process of one back end. Once something failed, it is asked nothing more."""

    def __init__(self, backend: str, process: subprocess.Popen[str], errors: Any) -> None:
        self.backend, self._process, self._errors = backend, process, errors
        self._failed: str | None = None
        self._rounds: list[float] = []
        self._products: list[float] = []
        self.facts: Mapping[str, Any] = {}

    def ask(self, request: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The answer to a request (None: to the job it was started with); None once it failed."""
        if self._failed is not None:
            return None
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        with suppress(OSError):  # it is gone: no answer comes
            if request is not None:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        answer: Mapping[str, Any] = json.loads(line) if line else {"failed": self._last_words()}
        if "failed" in answer:
            self._failed = str(answer["failed"])
            return None
        return answer

    def seconds(self, what: str, n: int) -> list[float]:
        """Seconds of n steps or products; nothing once it failed."""
        answer = self.ask({"do": what, "n": n})
        return [] if answer is None else list(answer["seconds"])

    def turn(self, n: int) -> None:
        """A round's turn: n steps, then n products."""
        steps, products = self.seconds("steps", n), self.seconds("product", n)
        if steps and products:
            self._rounds.append(statistics.median(steps))
            self._products.append(statistics.median(products))

    def timing(self) -> Timing:
        """What was measured."""
        if self._failed is not None:
            return Timing(self.backend, failed=self._failed)
        return Timing(
            self.backend,
            tuple(self._rounds),
            tuple(self._products),
            self.facts["fallback_rows"],
            self.facts["peak_bytes"],
        )

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        end = f"signal {-code} (was memory short?)" if code < 0 else f"status {code}"
        return f"its process ended with {end}" + (f": {lines[-1]}" if lines else "")


@contextmanager
def _worker(backend: str, job: Mapping[str, Any], threads: int) -> Iterator[_Worker]:
    """Starts a process, which begins to build at once; ends it afterwards."""
    from saebench.nn.kernels.backends import VARIABLE

    # the paths of this process, and none that `-m` would add; the same variable that people use
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    env = {**os.environ, VARIABLE: backend, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "saebench.measure.backends.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=env, text=True,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
            yield _Worker(backend, process, errors)
        finally:
            process.kill()
            with suppress(OSError):
                process.communicate()


def run(
    shapes: Sequence[Shape],
    chosen: Choice,
    *,
    device: str,
    rounds: int,
    threads: int,
    plugins: Sequence[Path] = (),
    say: Callable[[str], None] = lambda line: None,
) -> list[Measured]:
    """Measures all shapes that memory can hold, with a bar and the time left on standard error.

    Raises:
        MachineError: Memory can hold none of them.
        PluginError: No back end could be measured at some shape.
    """
    refused = {shape.key: refusal(shape, len(chosen.measured), device) for shape in shapes}
    reasons = [reason for reason in refused.values() if reason]
    fitting = [shape for shape in shapes if refused[shape.key] is None]
    if not fitting:
        raise MachineError(reasons[0])
    for reason in reasons:
        say(f"left out: {reason}")
    total = sum(map(work, fitting))
    names = ", ".join(chosen.measured)
    with console.phase("measuring", names, total=total) as bar:
        return list(
            measure(
                fitting, chosen.measured, device=device, rounds=rounds, threads=threads, plugins=plugins,
                advance=lambda shape, done: bar.update(done * work(shape)),
            )
        )  # fmt: skip
