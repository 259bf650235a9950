from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.read.records import CellRecord
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.trajectories import (
    Spend,
    mean_trajectory,
    numerics,
    seconds_spent,
    spent_before,
    training_trajectory,
)

Records = dict[str, dict[str, Any]]


def cell(facts: dict[str, Any], measured: dict[str, Any] | None = None) -> CellRecord:
    return CellRecord("records/x.json", {"facts": {"spent": None, **facts}, "measured": measured or {}})


def point(tokens: int, **changes: Any) -> dict[str, Any]:
    return {"tokens": tokens, "flops": tokens * 10, "fvu": 0.5, "l0": 8.0, **changes}


def trained(*points: dict[str, Any], **measured: Any) -> CellRecord:
    return cell({"training": {"trajectory": list(points)}}, measured)


def test_seconds_stand_beside_the_points_they_were_measured_at() -> None:
    points = training_trajectory(trained(point(10), point(20, fvu=None), point(40), trajectory_s=[0.1, 0.2, 0.4]))
    assert [(step.tokens, step.seconds) for step in points] == [(10, 0.1), (40, 0.4)]


@pytest.mark.parametrize("seconds", [None, [0.1, None]])
def test_without_seconds_the_other_currencies_remain(seconds: Any) -> None:
    points = training_trajectory(trained(point(10), point(20), trajectory_s=seconds))
    assert [(step.flops, step.seconds) for step in points] == [(100, None), (200, None)]


def test_nothing_trained_has_no_trajectory() -> None:
    assert training_trajectory(cell({"training": None})) == ()
    assert training_trajectory(cell({})) == ()


def test_seconds_of_another_length_are_a_damaged_record(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    path, record = next((path, record) for path, record in records[0].items() if "/topk/k16-s1" in path)
    record["measured"]["trajectory_s"].pop()
    with pytest.raises(SuiteError, match="damaged record: cannot read its training trajectory") as caught:
        make_board(merged_records([generator.write_folder(tmp_path, *records)]))
    assert path in str(caught.value)


def test_work_that_was_not_done_took_no_time_and_work_not_timed_is_unknown() -> None:
    spent = {"data": {"tokens": 0, "flops": 0}, "parent": {"tokens": 5, "flops": 50}}
    older, newer = cell({"spent": spent}), cell({"spent": spent}, {"spent_s": {"data": 0.0, "parent": 2.5}})
    assert seconds_spent(older, "data") == 0.0
    assert seconds_spent(older, "parent") is None
    assert seconds_spent(newer, "parent") == 2.5
    assert spent_before(older) == Spend(5.0, 50.0, None)
    assert spent_before(newer).seconds == 2.5


def test_the_mean_stands_where_all_seeds_noted() -> None:
    runs = [
        training_trajectory(trained(point(10), point(20), point(30, fvu=0.2))),
        training_trajectory(trained(point(10, fvu=0.7), point(30))),
    ]
    assert [(step.tokens, step.fvu, step.seconds) for step in mean_trajectory(runs)] == [
        (10, pytest.approx(0.6), None),
        (30, pytest.approx(0.35), None),
    ]
    assert mean_trajectory([(), runs[0]]) == ()


def test_numerics_are_told_as_text_and_fallback_rows_as_a_mean() -> None:
    def with_numerics(backend: str, share: float | None) -> CellRecord:
        facts = {} if share is None else {"fallback_rows": {"mean": share, "n": 3}}
        found = {"backend": backend, "deterministic": True, "products": ["screen", "decode"], "activations": None}
        return cell({"training": {"numerics": found, "facts": facts}})

    assert numerics([with_numerics("plain", None), with_numerics("bf16-screen", None)]) == {
        "activations": ("none",),
        "backend": ("bf16-screen", "plain"),
        "deterministic": ("yes",),
        "products": ("screen, decode",),
    }
    assert numerics([with_numerics("plain", 0.001), with_numerics("plain", 0.003)])["fallback rows"] == ("0.200%",)
    assert numerics([cell({"training": None}), cell({})]) == {}
