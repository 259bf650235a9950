"""The simulation of ranks, in short, on the code that ranks: what docs/statistics.md promises."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "statistics" / "ranks.py"


@pytest.fixture(scope="module")
def ranks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_statistics_ranks", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("seeds", "contenders", "h", "most_false", "least_power"),
    [(3, 5, 0, 0.07, 0.5), (3, 10, 1, 0.07, 0.35), (3, 10, 2, 0.10, 0.3), (5, 5, 1, 0.07, 0.75)],
)
def test_equal_contenders_are_seldom_separated_and_better_ones_are_found(
    ranks: ModuleType, seeds: int, contenders: int, h: float, most_false: float, least_power: float
) -> None:
    told = ranks.study(200, seeds, contenders, h, np.random.default_rng(1))
    assert told.false <= most_false + 2 * (most_false / 200) ** 0.5
    assert told.power >= least_power
    assert told.contradicted == 0
    assert told.ranks_hold >= 0.9
    assert told.coverage >= 0.9


def test_a_log_scale_mends_the_coverage_of_log_normal_values(ranks: ModuleType) -> None:
    plain, log = ranks.log_normal_coverage(20_000, np.random.default_rng(0))
    assert plain < 0.9 < log
    assert log == pytest.approx(0.95, abs=0.01)
