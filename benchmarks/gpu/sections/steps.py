"""A training step beside the encoder's product and, where it can be imported, sparsify's step: interleaved rounds."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from material import activations, wait
from notes import Notes

from saebench.measure.machine import n_threads, run_numerics
from sections import Setting

PEERS = Path(__file__).resolve().parents[2] / "peers"
SHAPES = {
    "512/8192/32/2048": (512, 8192, 32, 2048),
    "768/24576/32/4096": (768, 24576, 32, 4096),
    "2304/65536/64/8192": (2304, 65536, 64, 8192),
}
"""d_in / d_sae / k / batch."""
ON_A_CPU = {"2304/65536/64/8192": (2304, 16384, 64, 1024)}
SMALL = {"512/8192/32/2048": (64, 512, 8, 256), "768/24576/32/4096": (64, 1024, 8, 256)}
OURS, FLOAT32, BFLOAT16, SPARSIFY = "saebench", "product float32", "product bfloat16", "sparsify"
CONTENDERS: dict[str, tuple[str, dict[str, Any]]] = {
    OURS: ("ours", {}),
    SPARSIFY: ("sparsify", {}),
    FLOAT32: ("product", {"kind": "float32"}),
    BFLOAT16: ("product", {"kind": "bfloat16"}),
}
WARM_UP = 20
"""Untimed steps of ours on a card: what selection costs depends on how far the weights are trained. Others take 3."""


class Memory:
    """Bytes on the card; on a CPU nothing, since a process's memory is all contenders' together."""

    def __init__(self, device: torch.device) -> None:
        self._cuda, self._before = device.type == "cuda", 0

    def start(self) -> None:
        """From here on."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()

    def held(self) -> int:
        """Bytes more than at the start."""
        return torch.cuda.memory_allocated() - self._before if self._cuda else 0

    def peak(self) -> int:
        """Most bytes over those at the start."""
        return torch.cuda.max_memory_allocated() - self._before if self._cuda else 0


def as_itself(who: str) -> None:
    """Deterministic operators for our step, as in a run; for others torch's defaults."""
    torch.use_deterministic_algorithms(who == OURS)


def turn(step: Any, prepare: Any, batches: list[torch.Tensor], steps: int, device: torch.device) -> float:
    """Median seconds of some steps, after one that does not count."""
    taken = []
    for index in range(steps + 1):
        prepare()
        x = batches[index % len(batches)]
        wait(device)
        started = perf_counter()
        step(x)
        wait(device)
        taken.append(perf_counter() - started)
    return median(taken[1:])


def shape(notes: Notes, name: str, sizes: tuple[int, int, int, int], setting: Setting) -> None:
    """All contenders at one shape."""
    from importlib import import_module

    from contenders import Setting as Wanted

    d_in, d_sae, k, batch = sizes
    device, memory = setting.place, Memory(setting.place)
    rows = activations(4 * batch, d_in, device)
    batches = list(rows.split(batch))
    none = torch.empty(0, dtype=torch.long, device=device)
    built: dict[str, Any] = {}
    for who, (module, options) in CONTENDERS.items():
        gc.collect()
        memory.start()
        as_itself(who)
        try:
            made = import_module(f"contenders.{module}").build(
                Wanted(d_in, d_sae, k, batch, options, batches, device, none)
            )
            made.before_turn()
            for index in range(2 if setting.short else WARM_UP if who == OURS and setting.is_cuda else 3):
                made.prepare()
                made.step(batches[index % 4])
            wait(device)
        except Exception as error:
            if who != SPARSIFY:
                raise
            notes.fact(f"{name} {who}", f"left out: {type(error).__name__}: {error}")
            continue
        if setting.is_cuda:
            notes.figure(f"{name} {who}: most memory, with weights and moments", memory.peak() / 1e9, "GB")
        built[who] = made
    rounds, steps = (2, 1) if setting.short else (5, 10) if setting.is_cuda else (3, 1)
    times: dict[str, list[float]] = {who: [] for who in built}
    for _ in range(rounds):
        for who, made in built.items():
            as_itself(who)
            times[who].append(turn(made.step, made.prepare, batches, steps, device))
    for who, taken in times.items():
        notes.figure(f"{name} {who}", 1000 * median(taken), "ms")
        notes.fact(f"{name} {who}: rounds, ms", [round(1000 * value, 4) for value in taken])
    for who in (FLOAT32, BFLOAT16):
        ratio = median(ours / theirs for ours, theirs in zip(times[OURS], times[who], strict=True))
        notes.figure(f"{name} our step over the {who}", ratio, "x")
    if SPARSIFY in times:
        ratio = median(theirs / ours for ours, theirs in zip(times[OURS], times[SPARSIFY], strict=True))
        notes.figure(f"{name} sparsify's step over ours", ratio, "x")
    notes.figure(f"{name} our tokens a second", round(batch / median(times[OURS])), "")
    notes.fact(f"{name} facts", built[OURS].facts())


def run(notes: Notes, setting: Setting) -> None:
    sys.path.append(str(PEERS))
    chosen = SMALL if setting.short else {**SHAPES, **(ON_A_CPU if not setting.is_cuda else {})}
    notes.fact("sizes (d_in, d_sae, k, batch)", chosen)
    with run_numerics(n_threads()):
        for name, sizes in chosen.items():
            shape(notes, name, sizes, setting)
            gc.collect()
            if setting.is_cuda:
                torch.cuda.empty_cache()
