"""One-to-one matching: SciPy's dense solver and ours on the same pair."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.optimize import linear_sum_assignment

from saebench.matching import best_cosines, cosine_matrix, match


def _pair(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    A = rng.standard_normal((n, 256)).astype(np.float32)
    B = np.where(rng.random((n, 1)) < 0.4, A + 0.3 * rng.standard_normal((n, 256)), rng.standard_normal((n, 256)))
    return A, B[rng.permutation(n)].astype(np.float32)


@pytest.mark.parametrize("n", [512, 1024, 2048, 4096])
@pytest.mark.parametrize("method", ["scipy", "ours"])
def test_match(benchmark: BenchmarkFixture, n: int, method: str) -> None:
    benchmark.group = f"match {n} x {n}"
    A, B = _pair(n)
    if method == "ours":
        assert benchmark(lambda: match(A, B)).proven
    else:
        benchmark(lambda: linear_sum_assignment(cosine_matrix(A, B), maximize=True))


def test_best_cosines(benchmark: BenchmarkFixture) -> None:
    benchmark.group = "best cosines 8192 x 8192"
    A, B = _pair(8192)
    benchmark(lambda: best_cosines(A, B))
