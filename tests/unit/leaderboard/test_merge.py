from __future__ import annotations

import copy
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard.read.merge import dotted, merged_records, unequal

Records = dict[str, dict[str, Any]]
FIRST = "topk"


def one(records: Records, entry: str = FIRST) -> tuple[str, dict[str, Any]]:
    path = next(path for path in sorted(records) if f"/{entry}/" in path)
    return path, records[path]


def test_every_record_is_read_in_a_fixed_order(folder: Path, records: tuple[Records, Records]) -> None:
    records_here = merged_records([folder])
    assert len(records_here.cells) == len(records[0])
    assert len(records_here.groups) == len(records[1])
    assert records_here.left_out == ()


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no such folder. Name a run folder") as error:
        merged_records([tmp_path / "nothing"])
    assert "\n" not in str(error.value)


def test_a_folder_without_records_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"no records below records/. Run `saebench run`"):
        merged_records([tmp_path])
    with pytest.raises(SuiteError, match="no folder given"):
        merged_records([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a cell record"),
        ('{"kind": "cell", "schema_version": 99}', "schema_version is 99"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "records" / "s" / "e" / "broken.json"
    path.parent.mkdir(parents=True)
    path.write_text(text, "utf-8")
    with pytest.raises(SuiteError, match=message) as error:
        merged_records([tmp_path])
    assert "broken.json" in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("init_seed", "zero"), ("metrics", None), ("model", []), ("spent", 3)])
def test_a_record_without_what_a_page_needs_is_named(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records], key: str, value: object
) -> None:
    path, record = one(records[0])
    record["facts"][key] = value
    generator.write_folder(tmp_path, {path: record})
    with pytest.raises(SuiteError, match=rf"damaged record \(facts\.{key}.*None of 1 records can be read"):
        merged_records([tmp_path])


def test_a_metric_that_lacks_a_key_is_named(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    path, record = one(records[0])
    del record["facts"]["metrics"]["fvu"]["stderr"]
    generator.write_folder(tmp_path, {path: record})
    with pytest.raises(SuiteError, match=r"facts\.metrics\.fvu\.stderr: field required"):
        merged_records([tmp_path])


def test_equal_facts_merge_whatever_was_measured(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    path, record = one(records[0])
    record["measured"]["times"]["train_s"] = 99.0
    other = generator.write_folder(tmp_path, {path: record})
    merged = merged_records([folder, other])
    assert len(merged.cells) == len(records[0])
    assert merged.left_out == ()
    assert merged == merged_records([other, folder])


def test_conflicting_facts_are_set_aside_and_listed(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    path, record = one(records[0])
    record["facts"]["metrics"]["fvu"]["value"] += 0.01
    other = generator.write_folder(tmp_path, {path: record})
    merged = merged_records([folder, other])
    assert len(merged.cells) == len(records[0]) - 1
    (left,) = merged.left_out
    assert (left.kind, left.score_id) == ("conflict", record["score_id"])
    assert "metrics.fvu.value" in left.reason


def test_a_failure_on_one_machine_is_no_conflict(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    path, record = one(records[0])
    record["facts"].update(status="failed", error={"type": "OSError", "message": "x"}, metrics={})
    merged = merged_records([folder, generator.write_folder(tmp_path, {path: record})])
    assert all(cell.ok for cell in merged.cells if cell.score_id == record["score_id"])
    assert merged.left_out == ()


def rescored(record: dict[str, Any], *, finished: str, supersedes: str | None) -> dict[str, Any]:
    new = copy.deepcopy(record)
    new["score_id"] = "f" * 64
    new["supersedes"] = supersedes
    new["measured"]["finished"] = finished
    new["facts"]["metrics"]["fvu"]["value"] = 0.5
    return new


@pytest.mark.parametrize(("finished", "by_name"), [("2026-11-20T09:00:00Z", False), ("2020-01-01T00:00:00Z", True)])
def test_the_newest_score_of_a_cell_is_taken(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records], finished: str, by_name: bool
) -> None:
    path, record = one(records[0])
    new = rescored(record, finished=finished, supersedes=record["score_id"] if by_name else None)
    generator.write_folder(tmp_path, {path: record, path.replace(".json", "-new.json"): new})
    records_here = merged_records([tmp_path])
    assert [cell.score_id for cell in records_here.cells] == [new["score_id"]]
    assert [item.kind for item in records_here.left_out] == ["superseded"]


def test_another_config_under_the_same_name_is_another_contender(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    path, record = one(records[0])
    other = copy.deepcopy(record)
    other["facts"]["config"]["k"] = 9
    other["cell_id"], other["score_id"] = "c" * 64, "d" * 64
    generator.write_folder(tmp_path, {path: record, path.replace(".json", "-other.json"): other})
    records_here = merged_records([tmp_path])
    assert len(records_here.cells) == 2
    assert records_here.left_out == ()


def test_leaves_that_differ() -> None:
    a = {"x": 1, "y": [1, {"z": True}], "same": None}
    b = {"x": 1.0, "y": [1, {"z": 1}], "same": None, "new": "v"}
    found = [(dotted(keys), left, right) for keys, left, right in unequal(a, b)]
    assert found == [("new", "(absent)", "v"), ("y[1].z", True, 1)]
    assert list(unequal(json.loads(json.dumps(a)), a)) == []
