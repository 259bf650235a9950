"""Exact matching of two large dictionaries on the device: seconds, memory, certificate; a small one beside SciPy."""

from __future__ import annotations

import importlib.util
import resource
import sys
from pathlib import Path
from time import perf_counter
from types import ModuleType

import torch
from material import wait
from notes import Notes

from saebench.matching import match
from saebench.matching.result import PROVEN_GAP
from saebench.measure.machine import n_threads, run_numerics
from sections import Setting

PAIRS = Path(__file__).resolve().parents[2] / "matching" / "run.py"
TOTAL_BOUND = 1e-9
"""Largest relative distance of the total from the CPU's: both are proven best, and cosines are float64."""


def pairs() -> ModuleType:
    """`benchmarks/matching/run.py`, which makes the pairs of dictionaries."""
    spec = importlib.util.spec_from_file_location("matching_run", PAIRS)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _memory(setting: Setting) -> int:
    if setting.is_cuda:
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run(notes: Notes, setting: Setting) -> None:
    made, device = pairs(), setting.place
    sizes = (1024, 2048) if setting.short else (2048, 16_384, 65_536 if setting.is_cuda else 32_768)
    notes.fact("latents", sizes)
    notes.fact("pair", "40 % of the rows with a partner of cosine 0.95, 20 % of 0.5, the rest unrelated; width 256")
    with run_numerics(n_threads()):
        for n in sizes:
            A, B = (side.to(device) for side in made.pair("mix", n, Path()))
            if setting.is_cuda:
                torch.cuda.reset_peak_memory_stats()
            before = _memory(setting)
            wait(device)
            started = perf_counter()
            found = match(A, B)
            wait(device)
            notes.figure(f"{n:,} latents", perf_counter() - started, "s")
            notes.figure(f"{n:,} latents: peak memory over what was held", (_memory(setting) - before) / 1e6, "MB")
            notes.figure(f"{n:,} latents: proven relative gap", found.relative_gap, most=PROVEN_GAP)
            notes.fact(f"{n:,} latents", {"total": found.total, **dict(found.facts)})
            if n == sizes[0]:
                best = match(A.cpu(), B.cpu(), method="dense").total
                notes.figure(f"{n:,} latents: total, from SciPy's", abs(found.total - best) / best, most=TOTAL_BOUND)
                again = match(A, B)
                same = again.total == found.total and (again.columns == found.columns).all()
                notes.check(f"{n:,} latents: equal again", bool(same))
