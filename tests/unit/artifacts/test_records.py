from __future__ import annotations

import json
from pathlib import Path

import pytest

from saebench.api import SuiteError
from saebench.artifacts import RunFolder, iter_groups, iter_records, read_record, write_record

RECORD = {"kind": "cell", "cell_id": "a", "score_id": "b", "facts": {"status": "ok"}, "measured": {}}


def test_round_trip_in_path_order(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for entry, name in (("b", "x-s0-1.json"), ("a", "x-s1-1.json"), ("a", "x-s0-1.json")):
        write_record(run.record("suite", entry, name), {**RECORD, "cell_id": entry + name})
    write_record(
        run.group_record("suite", "a", "x"),
        {"kind": "group", "group_id": "g", "facts": {"status": "ok"}, "measured": {}},
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
        ({"schema_version": 2}, "schema_version is 2"),
        ({"facts": {"status": "fine"}}, "damaged record"),
    ],
)
def test_records_that_cannot_be_read(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"schema_version": 1, **RECORD, **change}))
    with pytest.raises(SuiteError, match=words):
        read_record(path)


def test_half_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text('{"schema_version": 1, ')
    with pytest.raises(SuiteError, match=r"r\.json: not readable as JSON"):
        read_record(path)
