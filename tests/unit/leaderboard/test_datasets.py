from __future__ import annotations

import copy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.base.student import t_quantile
from saebench.leaderboard import build, load_groups
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.read.records import GroupRecord
from saebench.leaderboard.tables.agreement.datasets import DatasetAgreement, agreement, verdict
from saebench.leaderboard.tables.board import make_board

Records = dict[str, dict[str, Any]]


def across(folder: Path) -> tuple[DatasetAgreement, ...]:
    return make_board(merged_records([folder])).suites[0].sites[0].across


def over_datasets(groups: Records, point: str = "k8") -> tuple[str, dict[str, Any]]:
    return next((path, group) for path, group in groups.items() if f"/topk-{point}-" in path)


def test_datasets_and_seeds_side_by_side(agreeing_folder: Path) -> None:
    k8, k16 = across(agreeing_folder)
    assert [k8.label, k16.label] == ["topk k8", "topk k16"]
    assert (k8.entries, k8.datasets, k8.seeds) == (("faithful", "topk"), ("docs", "own"), 3)
    assert k8.rows == ("faithful k8", "topk k8")
    found = k8.kinds["datasets"]["sfr-alive"]
    assert (found.value, found.n, found.null) == (0.31, 3, 0.0)
    assert found.half == pytest.approx(t_quantile(2) * 0.011)
    assert k8.kinds["both"]["matched-cosine"].null == 0.207
    assert k8.kinds["both"]["matched-cosine"].corrected.half is not None
    assert set(k8.kinds["seeds"]) == {"sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs"}
    assert k8.difference.verdict == "dataset matters more"
    assert k16.difference.verdict == "tie"


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.1, 0.05, "dataset matters more"),
        (-0.1, 0.05, "seed matters more"),
        (0.05, 0.05, "tie"),
        (-0.01, 0.05, "tie"),
        (0.0, 0.0, "tie"),
        (0.1, None, "not known"),
        (None, None, "not known"),
    ],
)
def test_verdicts(value: float | None, half: float | None, text: str) -> None:
    assert verdict(value, half) == text


def test_without_details_the_metrics_give_the_table(agreeing: tuple[Records, Records]) -> None:
    path, record = over_datasets(agreeing[1])
    record["facts"]["details"] = {}
    found = agreement(GroupRecord(path, record))
    assert found.kinds["seeds"]["sfr-alive"].value == 0.43
    assert found.kinds["seeds"]["sfr-alive"].null is None
    assert set(found.kinds["both"]) == {"sfr-alive", "matched-cosine"}


def test_a_difference_without_an_interval_is_no_verdict(agreeing: tuple[Records, Records]) -> None:
    path, record = over_datasets(agreeing[1])
    record["facts"]["metrics"]["dataset-over-seed"]["stderr"] = None
    found = agreement(GroupRecord(path, record)).difference
    assert (found.value, found.half, found.verdict) == (0.12, None, "not known")
    assert found.reason == "no interval: leaving out one seed must leave two"
    del record["facts"]["metrics"]["dataset-over-seed"]
    assert agreement(GroupRecord(path, record)).difference.reason == "not measured"


def test_a_stale_group_is_not_shown(tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]) -> None:
    cells, groups = agreeing
    over_datasets(groups)[1]["facts"]["members"][0]["score_id"] = "0" * 64
    assert [item.label for item in across(generator.write_folder(tmp_path, cells, groups))] == ["topk k16"]


def test_a_part_of_a_larger_group_is_not_shown(
    tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]
) -> None:
    cells, groups = agreeing
    path, record = over_datasets(groups)
    part = copy.deepcopy(record)
    part["facts"]["members"] = [member for member in part["facts"]["members"] if member["init_seed"] < 2]
    part["group_id"] = "1" * 64
    groups[path.replace("topk-k8-", "topk-k8-part-")] = part
    k8, k16 = across(generator.write_folder(tmp_path, cells, groups))
    assert (k8.label, k8.seeds, k16.label) == ("topk k8", 3, "topk k16")


def test_two_groups_of_one_name_are_told_apart(
    tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]
) -> None:
    cells, groups = agreeing
    _, record = over_datasets(groups, "k16")
    record["facts"]["point"] = "k8"
    labels = [item.label for item in across(generator.write_folder(tmp_path, cells, groups))]
    assert len(set(labels)) == 2
    assert all(label.startswith("topk k8 [") for label in labels)


def test_a_group_without_values_is_named_with_its_reason(
    tmp_path: Path, generator: ModuleType, agreeing: tuple[Records, Records]
) -> None:
    cells, groups = agreeing
    facts = over_datasets(groups)[1]["facts"]
    facts.update(status="skipped", details={})
    for metric in facts["metrics"].values():
        metric.update(value=None, stderr=None, reason="fewer than two datasets")
    made = generator.write_folder(tmp_path / "in", cells, groups)
    assert [item.reason for item in across(made)] == ["fewer than two datasets", None]
    page = (build([made], tmp_path / "out") / "index.html").read_text("utf-8")
    assert "Not compared: topk k8 (fewer than two datasets)." in page
    assert page.count('id="across-') == 1
    assert "topk k8: docs" not in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_the_frame_has_groups_over_datasets(agreeing_folder: Path) -> None:
    frame = load_groups(agreeing_folder)
    found = frame[(frame.vary == "dataset+init_seed") & (frame.metric == "dataset-over-seed")]
    assert sorted(found.value) == [0.01, 0.12]
    assert set(found.entry) == {"topk + faithful"}
    assert set(found.training_dataset) == {"docs + own"}
    assert set(found.members) == {6}
    assert set(frame[frame.entry == "topk"].training_dataset) == {"docs"}
