"""One numeric back end in a process of its own. Reads a line of JSON on stdin, answers one on stdout.

First comes the shape; `{"ready": true}` answers it. Then `{"do": "steps", "n": 5}` and `{"do": "product", "n": 5}` ->
`{"seconds": [...]}`, and `{"do": "facts"}` -> `{"peak_bytes", "fallback_rows", "backend"}`. Whatever fails is answered
by `{"failed": "..."}`, and the process ends.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench.api import ActivationBatch, LossTerms, Site, StepInfo, SuiteError
from saebench.api.errors import first_line
from saebench.base.random import generator as seeded
from saebench.cells.cell import ArchitectureUse, TrainSettings
from saebench.host import load_catalog
from saebench.host.build import build_module
from saebench.measure.machine import run_numerics
from saebench.measure.stand_ins import wait
from saebench.nn.kernels import backends
from saebench.train.meter import PeakMemory
from saebench.train.step import Trainer

STEPS, FIRST = 10_000, 2_000
"""Steps are taken from the middle of a run of STEPS, where learning rate and penalties are at their full size."""
ALLOTTED = 10**10
"""Tokens of that run: so many that no latent dies by itself while it is timed."""
BATCHES = 4
ACTIVE = 24.0
"""Mean number of features in an activation."""
_CHUNK = 256


def activations(n: int, d: int) -> Tensor:
    """`[n, d]` float32 with E||x||^2 = d: features whose frequency falls with their rank, a mean, a little noise."""
    generator = seeded("bench-backends", d)
    features = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=generator), dim=1)
    frequency = 1.0 / (torch.arange(4 * d) + 10.0)
    frequency = (ACTIVE * frequency / frequency.sum()).clamp_max(0.5)
    mean = torch.randn(d, generator=generator) * (0.25 * (ACTIVE / d) ** 0.5)
    x = torch.empty(n, d)
    for rows in torch.split(x, _CHUNK):  # small pieces: what they take would be in the peak otherwise
        shape = (len(rows), 4 * d)
        active = torch.rand(shape, generator=generator) < frequency
        sizes = torch.empty(shape).exponential_(generator=generator)
        torch.addmm(mean, active * sizes, features, out=rows)
        rows.add_(torch.randn(rows.shape, generator=generator), alpha=0.1)
    return x.div_((x.square().sum(1).mean() / d).sqrt())


class Steps:
    """Training steps of the harness on some batches, without metering and monitoring."""

    def __init__(self, shape: Mapping[str, Any], device: torch.device, plugins: tuple[Path, ...]) -> None:
        part = ArchitectureUse(**shape["part"])
        self._device = device
        self._batch: int = shape["train"]["batch"]
        rows = activations(BATCHES * self._batch, shape["d_in"]).to(device)
        self._batches = cycle([ActivationBatch(x, x) for x in torch.split(rows, self._batch)])
        self._weight_shape = (shape["d_sae"], shape["d_in"])
        self._weight: Tensor | None = None
        self._peak_bytes = 0
        self._fallback: list[float] = []
        self._index = FIRST
        self._memory = PeakMemory(device, 1)
        self._before = self._memory.read()
        site = Site(shape["d_in"], shape["d_in"], "bench", "bench")
        generator = seeded(0, "init")
        module: Any = build_module(part, None, site=site, generator=generator, catalog=load_catalog(plugins))
        if hasattr(module, "fit"):
            raise SuiteError(f"architecture '{part.architecture}' is fitted: it takes no training step to measure.")
        module = module.to(device).train()
        if hasattr(module, "init_from_data"):
            with torch.no_grad():
                module.init_from_data(rows, generator)
        self._trainer = Trainer(module, TrainSettings(**shape["train"]), seeded(0, "train"), part.architecture)

    def step(self) -> LossTerms:
        """One step in the middle of a run."""
        index = self._index
        self._index = min(index + 1, STEPS // 2)
        return self._trainer.step(
            next(self._batches), StepInfo(index, index / STEPS, index * ALLOTTED // STEPS, ALLOTTED)
        )

    def steps(self, n: int) -> list[float]:
        """Seconds of n steps."""
        seconds = []
        for _ in range(n):
            wait(self._device)
            started = time.perf_counter()
            terms = self.step()
            wait(self._device)
            seconds.append(time.perf_counter() - started)
            if "fallback_rows" in terms.facts:
                self._fallback.append(float(terms.facts["fallback_rows"]))
        if self._weight is None:  # Linux counts resident pages late, so a small growth can read as less than none
            self._peak_bytes = max(0, self._memory.read() - self._before)
        return seconds

    def product(self, n: int) -> list[float]:
        """Seconds of n encoder products of this shape, `x @ W.T` alone, on the back end in use."""
        if self._weight is None:
            weight = torch.randn(self._weight_shape, generator=seeded("bench-backends", "weight"))
            self._weight = (weight / self._weight_shape[1] ** 0.5).to(self._device)
        multiply = _product(next(self._batches).x, self._weight, backends.current(self._device))
        seconds = []
        for _ in range(n):
            wait(self._device)
            started = time.perf_counter()
            multiply()
            wait(self._device)
            seconds.append(time.perf_counter() - started)
        return seconds

    def facts(self) -> dict[str, Any]:
        """Memory that building and stepping took; mean share of rows computed again, None where that is not told."""
        fallback = sum(self._fallback) / len(self._fallback) if self._fallback else None
        return {
            "peak_bytes": self._peak_bytes,
            "fallback_rows": fallback,
            "backend": backends.current(self._device),
        }


def _product(x: Tensor, W: Tensor, backend: str) -> Callable[[], Tensor]:
    """The product alone: bfloat16 operands are made before it, memory for the result is reused where it can be."""
    if backend == "bf16-screen":
        x, W = x.bfloat16(), W.bfloat16()
    if backend == "onednn":
        return partial(backends.product, x, W, None, backend)
    return partial(torch.mm, x, W.T, out=x.new_empty(len(x), len(W)))


def _turn(measure: Callable[[int], list[float]], n: int) -> list[float]:
    measure(1)  # brings the weights back into the caches after a neighbour's turn
    gc.collect()
    gc.disable()
    try:
        return measure(n)
    finally:
        gc.enable()


def main() -> None:
    """Serves one shape until stdin ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(message: Mapping[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    try:
        job = json.loads(sys.stdin.readline())
        with run_numerics(job["threads"]):
            steps = Steps(job["shape"], torch.device(job["device"]), tuple(map(Path, job["plugins"])))
            answer({"ready": True})
            for line in sys.stdin:
                request = json.loads(line)
                if request["do"] == "facts":
                    answer(steps.facts())
                else:
                    answer({"seconds": _turn(getattr(steps, request["do"]), request["n"])})
    except Exception as error:  # noqa: BLE001 - sent to the parent process
        traceback.print_exc()
        answer({"failed": first_line(error)})


if __name__ == "__main__":
    main()
