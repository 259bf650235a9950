from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bare_records import bare_cell, bare_group

from saebench.api.errors import Damaged, PluginError
from saebench.artifacts import RunFolder, check_record, iter_groups, iter_records, read_record, records_of, write_record

RECORD = bare_cell()


def test_round_trip_in_path_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for entry, name in (("b", "x-s0-1.json"), ("a", "x-s1-1.json"), ("a", "x-s0-1.json")):
        write_record(run.record("suite", entry, name), {**RECORD, "cell_id": entry + name})
    write_record(
        run.group_record("suite", "a", "x"),
        bare_group("g"),
    )
    found = [(path.relative_to(tmp_path).as_posix(), record["cell_id"]) for path, record in iter_records(tmp_path)]
    assert found == [
        ("records/suite/a/x-s0-1.json", "ax-s0-1.json"),
        ("records/suite/a/x-s1-1.json", "ax-s1-1.json"),
        ("records/suite/b/x-s0-1.json", "bx-s0-1.json"),
    ]
    assert [record["group_id"] for _, record in iter_groups(tmp_path)] == ["g"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "group"}, "not a cell record"),
        ({"schema_version": 1}, "schema_version is 1"),
        ({"facts": {"status": "fine"}}, "damaged record"),
    ],
)
def test_records_that_cannot_be_read(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "r.json"
    write_record(path, {**RECORD, **change})
    with pytest.raises(Damaged, match=words) as caught:
        read_record(path)
    assert caught.value.found.startswith(str(path))


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"schema_version": 2, ')
    with pytest.raises(Damaged, match=r"r\.json: damaged \(not readable as JSON"):
        read_record(path)


def test_an_edited_record_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, bare_cell(expected_l0=0.25))
    path.write_text(path.read_text().replace("0.25", "0.15"))
    with pytest.raises(Damaged, match="record_sha256"):
        read_record(path)


def test_records_of_a_cell_are_found_whatever_stands_beside_them(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for score, cell in (("1", "one"), ("2", "one"), ("3", "other")):
        write_record(run.record("suite", "e", f"k-s0-{score}.json"), {**RECORD, "cell_id": cell, "score_id": score})
    run.record("suite", "e", "k-s0-1.json").write_text("one")
    assert [record["score_id"] for record in records_of(run, "one")] == ["2"]


@pytest.mark.parametrize("change", [{"expected_l0": 1e301}, {"tags": ["half \ud800"]}, {"config": {"k": 10**400}}])
def test_what_could_not_be_read_back_is_known_before_it_is_written(change: dict[str, Any]) -> None:
    check_record(RECORD)
    with pytest.raises(PluginError, match="its record cannot be kept"):
        check_record(bare_cell(**change))
