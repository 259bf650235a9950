from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from saebench.base.student import t_quantile
from saebench.leaderboard.tables.statistics import over_seeds


def test_the_quantile_of_t_is_right_to_the_last_digits() -> None:
    """Closed forms of one and two degrees of freedom: tan(0.475 pi) and sqrt(2 * 0.95^2 / (1 - 0.95^2))."""
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-14)
    assert t_quantile(2) == pytest.approx(math.sqrt(2 * 0.95**2 / (1 - 0.95**2)), rel=1e-14)
    assert t_quantile(3, 0.99) == pytest.approx(stats.t.ppf(0.995, 3), rel=1e-12)
    assert t_quantile(1e9) == pytest.approx(1.959963984540054, rel=1e-8)


def test_interval_over_three_seeds_by_hand() -> None:
    # mean 2, s = 1, t(2) = 4.302652730 at 95 %: half-width 4.302652730 / sqrt(3) = 2.484137
    estimate = over_seeds({0: 1.0, 1: 2.0, 2: 3.0}, stderrs=[0.1, 0.3])
    assert estimate.value == 2.0
    assert estimate.half == pytest.approx(2.4841377)
    assert (estimate.n, estimate.sd, estimate.stderr) == (3, 1.0, pytest.approx(0.2))


def test_one_seed_has_a_value_and_no_interval() -> None:
    estimate = over_seeds({4: 0.5})
    assert (estimate.value, estimate.half, estimate.sd, estimate.n) == (0.5, None, None, 1)


def test_no_seed_has_a_reason() -> None:
    estimate = over_seeds({}, reason="no token fired")
    assert (estimate.value, estimate.n, estimate.reason) == (None, 0, "no token fired")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=6), st.floats(0.1, 10), st.floats(-5, 5))
def test_intervals_scale_and_shift(values: list[float], scale: float, shift: float) -> None:
    plain = over_seeds(dict(enumerate(values)))
    moved = over_seeds({seed: scale * value + shift for seed, value in enumerate(values)})
    assert plain.value is not None
    assert plain.half is not None
    assert moved.value == pytest.approx(scale * plain.value + shift, abs=1e-9)
    assert moved.half == pytest.approx(scale * plain.half, rel=1e-6, abs=1e-9)


def test_coverage_of_the_interval_is_near_95_percent() -> None:
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(4000, 3))
    inside = 0
    for row in draws:
        estimate = over_seeds({seed: float(value) for seed, value in enumerate(row)})
        assert estimate.value is not None
        assert estimate.half is not None
        inside += abs(estimate.value) <= estimate.half
    assert inside / 4000 == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 4000))


def test_jackknife_intervals_by_hand() -> None:
    from saebench.leaderboard.tables.statistics import jackknife_half

    assert jackknife_half(0.01, 3) == pytest.approx(0.01 * 4.302652729749464)
    assert jackknife_half(0.01, 1) is None
    assert jackknife_half(None, 3) is None
