from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from saebench.leaderboard.pages.html import page_html
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.ranking.noise import Noise, split

Records = dict[str, dict[str, Any]]


def test_components_by_hand() -> None:
    """Means of rows 1, 4, of columns 2, 3: 2 * 4.5 = 9 and 2 * 0.5 = 1; nothing is left, so 9 / 2 and 1 / 2."""
    found = split({0: {0: 0.5, 1: 1.5}, 1: {0: 3.5, 1: 4.5}})
    assert found == Noise(pytest.approx(4.5**0.5), pytest.approx(0.5**0.5), 0.0, pytest.approx(0.9), 2, 2)


def test_a_component_that_comes_out_negative_is_zero() -> None:
    found = split({0: {0: 0.0, 1: 1.0}, 1: {0: 1.0, 1: 0.0}})
    assert found is not None
    assert (found.training, found.shared, found.own, found.share) == (0.0, 0.0, 1.0, 0.0)


def test_one_seed_of_either_has_no_components() -> None:
    assert split({0: {0: 1.0, 1: 2.0}}) is None
    assert split({0: {0: 1.0}, 1: {0: 2.0}}) is None
    assert split({}) is None
    assert split({0: {0: 1.0, 1: 2.0}, 1: {0: 3.0}}) is None


def test_equal_scores_have_no_share() -> None:
    assert split({0: {0: 1.0, 1: 1.0}, 1: {0: 1.0, 1: 1.0}}) == Noise(0.0, 0.0, 0.0, None, 2, 2)


def test_many_seeds_give_the_components_that_were_put_in() -> None:
    generator = np.random.default_rng(0)
    n = 300
    table = 3 * generator.normal(size=(n, 1)) + 2 * generator.normal(size=(1, n)) + generator.normal(size=(n, n))
    found = split({i: dict(enumerate(map(float, row))) for i, row in enumerate(table)})
    assert found is not None
    assert (found.training, found.shared, found.own) == pytest.approx((3, 2, 1), rel=0.1)
    assert found.share == pytest.approx(9 / 14, abs=0.06)


def test_a_page_shows_both_parts_of_a_suite_with_two_evaluation_seeds(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    assert "Noise of training" not in page_html(
        make_board(merged_records([written(generator, tmp_path / "a", records)]))
    )
    for record in records[0].values():
        for metric in record["facts"]["metrics"].values():
            if metric["value"] is not None:
                part = {"dataset": metric["on"], "slice": None, "stderr": None, "n": 1, "reason": None}
                metric["parts"] = [{**part, "seed": s, "value": metric["value"] + 0.01 * (s - 0.5)} for s in (0, 1)]
    board = make_board(merged_records([written(generator, tmp_path / "b", records)]))
    row = next(row for row in board.suites[0].sites[0].rows if row.label == "topk k8")
    noise = row.noise["variance-explained"]
    assert noise.shared == pytest.approx(0.01 / 2**0.5, rel=1e-6)
    assert noise.training == pytest.approx(row.metrics["variance-explained"].sd, rel=1e-6)
    assert noise.own == pytest.approx(0, abs=1e-9)
    assert "Noise of training and of evaluation" in page_html(board)


def written(generator: ModuleType, folder: Path, records: tuple[Records, Records]) -> Path:
    folder.mkdir()
    found: Path = generator.write_folder(folder, *records)
    return found
