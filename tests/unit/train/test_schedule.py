from __future__ import annotations

import pytest

from saebench.train.schedule import log_spaced_steps, lr_factor


def test_lr_factor_by_hand():
    # midpoint 0.05 of a warm-up of 0.1: half way up
    assert lr_factor(0.0, 0.1, 0.1, 0.2) == pytest.approx(0.5)
    assert lr_factor(0.4, 0.5, 0.1, 0.2) == 1.0
    # midpoint 0.95: a quarter of the last fifth is left
    assert lr_factor(0.9, 1.0, 0.1, 0.2) == pytest.approx(0.25)
    # an over-spending last step counts as ending at 1
    assert lr_factor(0.9, 1.3, 0.1, 0.2) == pytest.approx(0.25)
    assert lr_factor(0.0, 0.01, 0.0, 0.0) == 1.0


def test_lr_factor_sums_to_the_area_under_the_schedule():
    n = 200
    total = sum(lr_factor(i / n, (i + 1) / n, 0.1, 0.2) for i in range(n)) / n
    assert total == pytest.approx(1 - 0.05 - 0.1, abs=1e-9)


def test_log_spaced_steps():
    assert log_spaced_steps(100, 3) == [1, 10, 100]
    assert log_spaced_steps(5) == [1, 2, 3, 4, 5]
    steps = log_spaced_steps(150)
    assert len(steps) == len(set(steps)) == 12
    assert steps[0] == 1
    assert steps[-1] == 150
    for n in range(12, 400):
        steps = log_spaced_steps(n)
        assert len(steps) == 12
        assert steps == sorted(set(steps))
        assert steps[-1] == n
