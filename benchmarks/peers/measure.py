"""Runs one case: a process per contender, turns in a circle (A B C A B C), so that a slow minute of the machine hits
all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cases import Case, Entry

HERE = Path(__file__).resolve().parent
REST_S = 0.2
"""Between two turns, so that the last one's threads have gone to sleep."""


@dataclass(frozen=True)
class How:
    """How to measure.

    Attributes:
        python: Of the environment that holds all contenders.
        threads, device: For every contender.
        rounds: Turns a contender.
        steps: Timed steps a turn; None: the case's own.
        warmup: Most untimed steps before the first turn; None: each contender's own.
        scratch: Folder for activations.
        logs: Folder for what contenders print.
    """

    python: Path
    threads: int
    device: str
    rounds: int
    steps: int | None
    warmup: int | None
    scratch: Path
    logs: Path


@dataclass
class Figures:
    """What one contender came to.

    Attributes:
        rounds: Seconds of each step, a list a round.
        problem: Why there are none.
    """

    entry: Entry
    rounds: list[list[float]] = field(default_factory=list)
    peak_bytes: int | None = None
    base_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.entry.name, "module": self.entry.module, "shape": asdict(self.entry.shape),
            "options": dict(self.entry.options), "env": dict(self.entry.env), "warmup": self.entry.warmup,
            "seconds": self.rounds, "peak_bytes": self.peak_bytes, "base_bytes": self.base_bytes, "facts": self.facts,
            "problem": self.problem,
        }  # fmt: skip


class _Worker:
    """A contender's process."""

    def __init__(self, entry: Entry, how: How, activations: Path) -> None:
        self.figures = Figures(entry)
        threads = str(how.threads)
        environment = {
            **os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads,
            "WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1", **entry.env,
        }  # fmt: skip
        log = how.logs / ("".join(letter if letter.isalnum() else "-" for letter in entry.name) + ".log")
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [str(how.python), str(HERE / "worker.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, env=environment
        )  # fmt: skip
        warmup = entry.warmup if how.warmup is None else min(entry.warmup, how.warmup)
        self.ask({
            "module": entry.module, "shape": asdict(entry.shape), "options": dict(entry.options), "warmup": warmup,
            "threads": how.threads, "device": how.device, "activations": str(activations),
        })  # fmt: skip

    @property
    def well(self) -> bool:
        return self.figures.problem is None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One request, one answer; a contender that died or failed has a problem from then on."""
        answer: dict[str, Any] = {}
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError, json.JSONDecodeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        if not answer:
            self.figures.problem = f"the process ended with {self._process.wait()} (see {Path(self._log.name).name})"
        for word in ("unavailable", "failed"):
            if word in answer:
                self.figures.problem = f"{word}: {answer[word]}"
        return answer

    def end(self) -> None:
        if self.well:
            answer = self.ask({"do": "end"})
            self.figures.facts = answer.get("facts", {})
            self.figures.peak_bytes, self.figures.base_bytes = answer.get("peak_bytes"), answer.get("base_bytes")
        self.stop()

    def stop(self) -> None:
        if self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.communicate(timeout=20)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
        self._log.close()


def _activations(entry: Entry, how: How) -> Path:
    """Four batches for a contender; the same file for all of one width and batch."""
    shape = entry.shape
    path = how.scratch / f"{shape.d_in}-{shape.batch}.npy"
    if not path.exists():
        subprocess.run(
            [str(how.python), str(HERE / "activations.py"), str(path), str(4 * shape.batch), str(shape.d_in)],
            check=True,
        )
    return path


def measure(case: Case, how: How) -> list[Figures]:
    """Every contender's figures, in the case's order."""
    if not case.apart:
        return _measure(case, case.entries, how)
    modules = dict.fromkeys(entry.module for entry in case.entries)
    groups = [[entry for entry in case.entries if entry.module == module] for module in modules]
    return [figures for entries in groups for figures in _measure(case, entries, how)]


def _measure(case: Case, entries: Sequence[Entry], how: How) -> list[Figures]:
    def tell(text: str) -> None:
        print(f"peers: {case.name}: {text}", file=sys.stderr, flush=True)

    workers: list[_Worker] = []
    try:
        for entry in entries:
            tell(f"starting {entry.name}")
            workers.append(_Worker(entry, how, _activations(entry, how)))  # one after another: each warms up alone
            if workers[-1].figures.problem:
                tell(f"{entry.name}: {workers[-1].figures.problem}")
        for index in range(how.rounds):
            tell(f"round {index + 1} of {how.rounds}")
            for worker in workers:
                if worker.well:
                    time.sleep(REST_S)
                    seconds = worker.ask({"do": "turn", "steps": how.steps or case.steps}).get("seconds")
                    if seconds:
                        worker.figures.rounds.append(seconds)
                        tell(f"{worker.figures.entry.name}: {1000 * min(seconds):.0f} ms at best")
                    else:
                        tell(f"{worker.figures.entry.name}: {worker.figures.problem}")
        for worker in workers:
            worker.end()
    finally:
        for worker in workers:
            worker.stop()
    return [worker.figures for worker in workers]
