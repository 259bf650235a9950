"""Limits of time and of memory: the best matching so far with a true gap, and never an array of all pairs."""

from __future__ import annotations

import math
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matching_cases import crowd
from torch.utils._python_dispatch import TorchDispatchMode
from verifier import best_total, verify

from saebench.matching import Matching, best_cosines, match
from saebench.matching.solve import screen as screens
from saebench.matching.solve import solver as module
from saebench.matching.solve.screen import TILE, Screen
from saebench.matching.solve.similarity import Similarity, as_rows

WHOLE_TILES = TILE


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles a pass and several rounds at the sizes of a test."""
    monkeypatch.setattr(screens, "TILE", (32, 64))
    monkeypatch.setitem(module.Solver.__init__.__kwdefaults__, "per_row", 2)


def problem(shape: tuple[int, int], zeros: bool = False) -> tuple[np.ndarray, np.ndarray]:
    A, B = crowd(*shape, 16, 0.05, (20, 12))
    if zeros:
        A[::7], B[::5] = 0, 0
    return A, B


def honest(found: Matching, A: Any, B: Any, best: float, signed: bool = True) -> None:
    """A one-to-one matching, and the optimum within the gap that it claims."""
    bound = verify(found, [(A, B)], signed=signed)
    assert bound >= best - 1e-9
    assert best - found.total <= found.relative_gap * abs(best) + 1e-9
    if best - found.total > 2e-6 * abs(best):
        assert not found.proven


class Clock:
    """In place of `time`: from the k-th look at it, all the time in the world has passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, last: float) -> None:
        self.looks = 0
        self.last = last
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=self.monotonic))

    def monotonic(self) -> float:
        self.looks += 1
        return math.inf if self.looks >= self.last else -math.inf


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("shape", "zeros", "signed"),
    [((150, 150), False, True), ((120, 170), False, False), ((170, 120), False, True), ((140, 150), True, True)],
)
def test_stopped_at_any_moment(
    shape: tuple[int, int], zeros: bool, signed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    A, B = problem(shape, zeros)
    best = best_total([(A, B)], signed)
    clock = Clock(monkeypatch, math.inf)
    in_full = match(A, B, signed=signed, method="sparse", time_limit_s=1)
    assert in_full.facts["stopped"] is None
    assert in_full.facts["rounds"] > 1
    assert in_full.total == pytest.approx(best, rel=1e-12)
    looks = clock.looks
    assert looks > 30
    gaps = []
    for last in [*range(1, 12), *range(12, looks, 3), looks - 1, looks]:
        clock.looks, clock.last = 0, last
        found = match(A, B, signed=signed, method="sparse", time_limit_s=1)
        assert clock.looks == last
        assert found.facts["stopped"] == "time"
        honest(found, A, B, best, signed)
        gaps.append(found.relative_gap)
    assert gaps[0] > 0.1  # nothing but that no cosine is over 1 is known at first
    assert gaps[-1] < 0.02
    assert gaps[0] > np.median(gaps) > gaps[-1]
    clock.looks, clock.last = 0, looks + 1
    assert match(A, B, signed=signed, method="sparse", time_limit_s=1).facts["stopped"] is None


@pytest.mark.usefixtures("_small")
def test_a_stop_before_the_first_assignment_takes_the_greedy_one(monkeypatch: pytest.MonkeyPatch) -> None:
    A, B = problem((150, 150))
    clock = Clock(monkeypatch, math.inf)
    shares: list[int] = []
    candidates = module.Solver._candidates

    def seen(self: module.Solver, per_row: int) -> Any:
        found = candidates(self, per_row)
        shares.append(clock.looks)
        return found

    monkeypatch.setattr(module.Solver, "_candidates", seen)
    best = match(A, B, method="sparse", time_limit_s=1).total
    clock.looks, clock.last = 0, shares[0]  # the last tile of the candidates
    found = match(A, B, method="sparse", time_limit_s=1)
    assert found.facts["rounds"] == 0
    assert found.facts["stopped"] == "time"
    # two candidates a row leave some rows what is free
    by_chance = match(A, B, method="sparse", memory_limit_bytes=1)
    assert by_chance.facts["stopped"] == "memory"
    assert by_chance.total < 0.3 * best
    assert 0.8 * best < found.total < best


@pytest.mark.parametrize("limit", [1e-12, 1e-3, 0.05])
def test_real_time_limits(limit: float) -> None:
    A, B = problem((700, 700))
    found = match(A, B, method="sparse", time_limit_s=limit)
    honest(found, A, B, best_total([(A, B)]))
    assert found.facts["stopped"] == "time" or found.proven


def test_without_a_limit_the_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, 1)
    A, B = problem((60, 60))
    assert match(A, B, method="sparse").proven


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("shape", [(150, 150), (120, 170), (170, 120)])
def test_stopped_by_any_memory(shape: tuple[int, int]) -> None:
    A, B = problem(shape)
    best = best_total([(A, B)])
    n, m = sorted(shape)
    similarity = Similarity([(as_rows(A, "A"), as_rows(B, "B"))])
    base = Screen.nbytes(similarity)
    edge = module._EDGE_BYTES
    seen = set()
    for limit in [1, base - 1, *(base + int(share * edge * (n + m)) for share in np.linspace(0, 40, 30)), 10**9]:
        found = match(A, B, method="sparse", memory_limit_bytes=limit)
        honest(found, A, B, best)
        seen.add(found.facts["stopped"])
        if found.facts["stopped"] is None:
            assert found.proven
            assert found.total == pytest.approx(best, rel=1e-12)
        else:
            assert found.facts["stopped"] == "memory"
        if limit > base:
            assert found.facts.get("candidates", 0) * edge <= limit - base
    assert seen == {"memory", None}


def test_auto_takes_the_lean_way_where_memory_is_short() -> None:
    A, B = problem((150, 150))
    found = match(A, B, memory_limit_bytes=32 * 150 * 150 - 1)
    assert found.facts["method"] == "sparse"
    assert match(A, B, memory_limit_bytes=32 * 150 * 150).facts["method"] == "dense"


# ---- what is held
# -----------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Values of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, list | tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out


@pytest.mark.parametrize("kind", ["random", "crowd", "best_cosines"])
def test_no_array_of_all_pairs(kind: str) -> None:
    n = 6000
    A, B = crowd(n, n, 8, 1e-3, (60 if kind == "crowd" else 1,) * 2)
    B[:3000] += 3 * A[:3000]
    with Largest():
        match(A[:9], B[:9], method="sparse")  # what is imported on the way is not counted
    # NumPy's arrays are traced, SciPy's solver holds no more than the edges that it is given
    tracemalloc.start()
    try:
        with Largest() as largest:
            found = best_cosines(A, B) if kind == "best_cosines" else match(A.astype(np.float32), B.astype(np.float32))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert largest.values <= WHOLE_TILES[0] * WHOLE_TILES[1]
    # not even a byte a pair, beyond what lists the hits of a tile
    assert peak < n * n + 16 * WHOLE_TILES[0] * WHOLE_TILES[1]
    if isinstance(found, Matching):
        assert found.proven
        assert found.facts["method"] == "sparse"
    else:
        sample = np.arange(0, n, 500)
        c = (A / np.linalg.norm(A, axis=1, keepdims=True))[sample] @ (B / np.linalg.norm(B, axis=1, keepdims=True)).T
        assert found[0][sample] == pytest.approx(c.max(1), abs=1e-13)
