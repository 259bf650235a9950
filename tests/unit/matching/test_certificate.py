"""The optimum and its certificate, judged by a verifier that shares no code with the solver.

Twenty random cases run by default. All two hundred, with sizes up to 4,096 and larger trained ones: `pytest -m slow
tests/unit/matching`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matching_cases import Case, cases, trained
from verifier import best_total, close_to, verify

from saebench.matching import match, match_saes
from saebench.matching.assignment import match_factors

quiet = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def check(case: Case, method: str) -> None:
    found = match_factors(case.factors, signed=case.signed, method=method)  # type: ignore[arg-type]
    verify(found, case.factors, signed=case.signed)
    best = best_total(case.factors, case.signed)
    assert close_to(found.total, best, len(found.rows)), f"{found.total} is not the optimum {best}"
    assert found.facts["stopped"] is None
    assert found.proven


@settings(max_examples=20, derandomize=True, **quiet)
@given(cases(), st.sampled_from(["sparse", "sparse", "dense", "auto"]))
def test_the_optimum_is_scipys_and_proven(case: Case, method: str) -> None:
    check(case, method)


@pytest.mark.slow
@settings(max_examples=200, **quiet)
@given(st.one_of(cases(60), cases(300), cases(1200), cases(4096)), st.sampled_from(["sparse", "sparse", "auto"]))
def test_two_hundred_cases_up_to_4096(case: Case, method: str) -> None:
    # in few dimensions everything is near everything: minutes for the sparse method, which `auto` does not take there
    check(case, "auto" if case.d <= 3 and max(case.n, case.m) > 400 else method)


class Sae:
    def __init__(self, W_enc: Any, W_dec: Any) -> None:
        self.W_enc, self.W_dec = W_enc, W_dec


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("which", ["decoder", "encoder", "both"])
def test_trained_saes(which: str, signed: bool) -> None:
    (enc_a, dec_a), (enc_b, dec_b) = trained(256, 32, 0), trained(256, 32, 1)
    found = match_saes(Sae(enc_a, dec_a), Sae(enc_b, dec_b), which, signed=signed, method="sparse")  # type: ignore[arg-type]
    factors = {"decoder": [(dec_a, dec_b)], "encoder": [(enc_a, enc_b)]}
    factors["both"] = factors["decoder"] + factors["encoder"]
    verify(found, factors[which], signed=signed)
    assert close_to(found.total, best_total(factors[which], signed), 256)
    assert found.proven
    assert np.median(found.cosines) > 0.55  # random rows of this size have 0.45: the seeds did learn


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(1024, 1024), (2048, 2048), (4096, 4096), (1024, 4096), (4096, 2048)])
def test_larger_trained_saes(sizes: tuple[int, int]) -> None:
    A, B = trained(sizes[0], 64, 0)[1], trained(sizes[1], 64, 1)[1]
    for signed in (True, False):
        found = match(A, B, signed=signed, method="sparse")
        verify(found, [(A, B)], signed=signed)
        assert close_to(found.total, best_total([(A, B)], signed), min(sizes))
        assert found.proven


def test_one_case_at_4096() -> None:
    rng = np.random.default_rng(0)
    A = rng.standard_normal((4096, 24)).astype(np.float32)
    B = (A + 0.5 * rng.standard_normal(A.shape).astype(np.float32))[rng.permutation(4096)]
    found = match(A, B, method="sparse")
    verify(found, [(A, B)])
    assert found.proven
    assert close_to(found.total, match(A, B, method="dense").total, 4096)


# ---- the verifier itself
# ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(12, 12), (9, 14), (14, 9)])
def test_the_verifier_believes_nothing(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((shape[0], 4)), rng.standard_normal((shape[1], 4))
    found = match(A, B)
    verify(found, [(A, B)])

    def changed(array: np.ndarray, place: int, by: float) -> np.ndarray:
        out = array.copy()
        out[place] += by
        return out

    swapped = found.columns.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    twice = found.columns.copy()
    twice[0] = twice[1]
    tight_row, tight_column = int(found.rows[0]), int(found.columns[0])
    lies = {
        "not that of its pair": {"columns": swapped},
        "used twice": {"columns": twice},
        "increase": {"rows": found.rows[::-1]},
        "places for": {"rows": found.rows[:-1], "columns": found.columns[:-1]},
        "total: told": {"total": found.total + 1e-9},
        "above its prices": {"row_prices": changed(found.row_prices, tight_row, -1e-9)},
        "is proven": {"column_prices": changed(found.column_prices, tight_column, 1e-3)},
        "proven means": {"relative_gap": 1e-5},
        "never negative": {"relative_gap": -1e-16},
    }
    if shape[0] != shape[1]:
        larger, other = ("column_prices", "row_prices") if shape[0] < shape[1] else ("row_prices", "column_prices")
        price = getattr(found, larger)
        lies["price is negative"] = {larger: price - price.min() - 1e-9, other: getattr(found, other) + 1}
    for message, values in lies.items():
        with pytest.raises(AssertionError, match=message):
            verify(replace(found, **values), [(A, B)])
    with pytest.raises(AssertionError):
        verify(found, [(A, -B)])
    with pytest.raises(AssertionError):
        verify(found, [(A, B)], signed=False)


def test_a_worse_matching_with_an_honest_gap_passes_and_no_smaller_one() -> None:
    rng = np.random.default_rng(1)
    A, B = rng.standard_normal((10, 3)), rng.standard_normal((10, 3))
    best = match(A, B)
    columns = best.columns.copy()
    columns[[0, 1]] = columns[[1, 0]]
    unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (A, B))
    cosines = (unit_a[best.rows] * unit_b[columns]).sum(1)
    gap = 1 - cosines.sum() / best.total
    assert 0 < gap < 1
    worse = replace(best, columns=columns, cosines=cosines, total=float(cosines.sum()), proven=False)
    verify(replace(worse, relative_gap=gap * (1 + 1e-6)), [(A, B)])
    with pytest.raises(AssertionError, match="is proven"):
        verify(replace(worse, relative_gap=gap * (1 - 1e-6)), [(A, B)])


def test_the_gap_of_negative_sums_is_that_of_the_smallest_optimum() -> None:
    # total -2, bound -1: the best may be as small as -1, and then the matching is 100 % off
    from saebench.matching.result import finished

    two = np.arange(2)
    found = finished(two, two, np.array([-1.0, -1.0]), np.array([-0.5, -0.5]), np.zeros(2), False, 0.0, {})
    assert found.relative_gap >= 1
    assert not found.proven
