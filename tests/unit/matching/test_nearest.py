"""The nearest latent of another SAE, many to one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from matching_cases import Case, cases
from verifier import similarities

from saebench.api.errors import SuiteError
from saebench.matching import best_cosines
from saebench.matching.solve import nearest as module
from saebench.matching.solve import screen as screens


@pytest.fixture(params=["bfloat16", "float32", "dense"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Block by block in tiles that do not divide the sizes, or the whole matrix."""
    if request.param != "dense":
        monkeypatch.setattr(module, "DENSE_ALLOWED", 0)
        monkeypatch.setattr(screens, "TILE", (16, 24))
        features = frozenset({"bf16"}) if request.param == "bfloat16" else frozenset()
        monkeypatch.setattr(screens, "cpu_features", lambda: features)
    return str(request.param)


def check(A: object, B: object, signed: bool) -> None:
    c = similarities([(A, B)], signed)
    own, other = best_cosines(A, B, signed=signed)
    assert own.dtype == other.dtype == np.float64
    assert own == pytest.approx(c.max(1), abs=1e-14)
    assert other == pytest.approx(c.max(0), abs=1e-14)


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cases(60))
def test_the_largest_of_each_row_and_column(way: str, case: Case) -> None:
    check(*case.factors[0], case.signed)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    "turned",
    [
        lambda A: -A,  # every cosine of a crowd is negative
        lambda A: np.where(np.arange(len(A))[:, None] % 3, A, 0),  # zero rows
        lambda A: np.where(np.arange(len(A))[:, None] % 3, -A, 0),
        lambda A: 0 * A,
        lambda A: np.where(np.arange(len(A))[:, None] % 2, A, -A),
    ],
)
def test_rows_with_nothing_positive(turned: Callable[[np.ndarray], np.ndarray], signed: bool) -> None:
    rng = np.random.default_rng(0)
    A, B = 1 + 0.2 * rng.standard_normal((50, 12)), 1 + 0.2 * rng.standard_normal((37, 12))
    check(turned(A), B, signed)
    check(B, turned(A), signed)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4, 1e-6, 1e-9])
def test_best_cosines_that_drown_in_the_error_of_products(size: float) -> None:
    """Nearly orthogonal sides: the best cosine is as small as what low precision may be off by."""
    rng = np.random.default_rng(0)
    A, B = np.zeros((40, 24)), np.zeros((45, 24))
    A[:, :12], B[:, 12:] = rng.standard_normal((40, 12)), rng.standard_normal((45, 12))
    A += size * rng.standard_normal(A.shape)
    for signed in (True, False):
        check(A, B, signed)


@pytest.mark.usefixtures("way")
def test_near_ties_are_told_apart_in_float64() -> None:
    A = np.array([[1.0, 0.0]])
    angles = 1e-6 * (1 + np.arange(40))[::-1]
    B = np.stack([np.cos(angles), np.sin(angles)], 1)
    own, other = best_cosines(A, B)
    assert own[0] == pytest.approx(np.cos(1e-6), abs=3e-16)
    assert other == pytest.approx(np.cos(angles), abs=3e-16)


def test_above_the_limit_it_goes_block_by_block() -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((4200, 16)).astype(np.float32), rng.standard_normal((700, 16))
    check(A, B, True)


def test_what_is_refused() -> None:
    with pytest.raises(SuiteError, match="best cosines: got 0 and 3 rows; each side needs one at least"):
        best_cosines(np.ones((0, 2)), np.ones((3, 2)))
    with pytest.raises(SuiteError, match="A has width 2, B has 3"):
        best_cosines(np.ones((3, 2)), np.ones((3, 3)))
    with pytest.raises(SuiteError, match="B: 1 of 2 rows hold values that are not finite, first row 1"):
        best_cosines(np.ones((2, 2)), np.array([[1, 2], [np.nan, 1]]))


@pytest.mark.gpu
@pytest.mark.parametrize("signed", [True, False])
def test_on_a_gpu(signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DENSE_ALLOWED", 0)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((500, 16)), rng.standard_normal((700, 16))
    A[3], B[:10] = 0, -A[:10]
    on_gpu = best_cosines(torch.from_numpy(A).cuda(), B, signed=signed)
    c = similarities([(A, B)], signed)
    assert on_gpu[0] == pytest.approx(c.max(1), abs=1e-14)
    assert on_gpu[1] == pytest.approx(c.max(0), abs=1e-14)
