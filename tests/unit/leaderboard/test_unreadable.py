"""Records that cannot be read: left out and named, and the page is made all the same."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.cli import main
from saebench.leaderboard import build, diff, load, load_groups
from saebench.leaderboard import write as write_module
from saebench.leaderboard.pages.terminal import summary
from saebench.leaderboard.read.merge import MergedRecords
from saebench.leaderboard.read.records import CellRecord, GroupRecord
from saebench.leaderboard.read.survive import surviving
from saebench.leaderboard.tables import board as board_module

Records = tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]


@pytest.fixture
def broken(tmp_path: Path, generator: ModuleType, records: Records) -> Path:
    """Three of the cells and a group that cannot be read, each in another way."""
    cells, groups = records
    paths = sorted(path for path in cells if "/topk/" in path)
    cells[paths[0]]["facts"]["metrics"]["fvu"]["value"] = "<script>0.1</script>"
    cells[paths[1]]["facts"]["details"]["density-histogram"] = {"edges": []}
    name = next(iter(groups))
    groups[name]["facts"]["members"] = {"a": 1}
    folder: Path = generator.write_folder(tmp_path / "run", cells, groups)
    (folder / paths[2]).write_bytes(b"\x00\xff{")
    return folder


def test_the_page_is_made_and_names_them(broken: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    out = build([broken], tmp_path / "out", say=lines.append)
    left_out = json.loads((out / "data.json").read_text())["left_out"]
    assert {item["kind"] for item in left_out} == {"unreadable"}
    assert len(left_out) == len(lines) == 4
    assert all(line.startswith(("warning: records/", "warning: groups/")) for line in lines)
    for page in ("index.html", "README.md", "data.json"):
        text = (out / page).read_text()
        assert str(tmp_path) not in text
        assert "facts.metrics.fvu.value" in text.replace("\\_", "_")
    assert "<script>0.1" not in (out / "index.html").read_text() + (out / "README.md").read_text()
    assert any("cannot read its density" in item["reason"] for item in left_out)


def test_frames_leave_them_out_and_warn(broken: Path) -> None:
    with pytest.warns(UserWarning, match="is left out: damaged"):
        assert len(load(broken)) > 0
    with pytest.warns(UserWarning, match="is left out: damaged"):
        load_groups(broken)


def test_a_comparison_does_not_leave_them_out(broken: Path) -> None:
    with pytest.raises(SuiteError, match="damaged"):
        diff(broken, broken)


def test_status_of_the_command(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard", str(broken), "--out", str(tmp_path / "out")])
    assert ended.value.code == 0
    assert capsys.readouterr().err.count("warning: ") == 4
    for path in broken.glob("records/**/*.json"):
        path.write_text("{}")
    with pytest.raises(SystemExit) as ended:
        main(["leaderboard", str(broken), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert "records can be read" in err
    assert [line for line in err.splitlines() if not line.startswith("[")] == err.splitlines()[-1:]


def test_spend_that_never_rises_over_nothing_is_no_bug(tmp_path: Path, generator: ModuleType, records: Records) -> None:
    cells, groups = records
    for record in cells.values():
        for point in (record["facts"].get("training") or {}).get("trajectory") or []:
            point["flops"] = 0
    build([generator.write_folder(tmp_path / "run", cells, groups)], tmp_path / "out")


def test_digits_of_other_scripts_are_no_numbers(tmp_path: Path, generator: ModuleType, records: Records) -> None:
    cells, groups = records
    for record in cells.values():
        record["facts"]["entry"] += " ²٣" + "9" * 100
    build([generator.write_folder(tmp_path / "run", cells, groups)], tmp_path / "out")


@pytest.mark.parametrize("edge", [10**12, 1e9, True, "0"])
def test_an_edge_that_is_no_logarithm_is_left_out_at_once(
    tmp_path: Path, generator: ModuleType, records: Records, edge: Any
) -> None:
    cells, groups = records
    path = next(path for path in sorted(cells) if "/topk/" in path)
    cells[path]["facts"]["details"]["density-histogram"]["edges_log10"][-1] = edge
    lines: list[str] = []
    build([generator.write_folder(tmp_path / "run", cells, groups)], tmp_path / "out", say=lines.append)
    assert [line.split(" is left out: ")[0] for line in lines] == [f"warning: {path}"]
    assert "1e+9" not in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("edges", [[0, 10**12], [-5.0, 1e9], [0.0, -1.0]])
def test_edges_of_bins_are_logarithms_too(edges: list[Any]) -> None:
    from saebench.leaderboard.tables.details import log_edges

    with pytest.raises(ValueError, match="edges of a histogram rise"):
        log_edges(edges)


def test_a_cell_without_model_and_dataset_has_a_title(tmp_path: Path, generator: ModuleType, records: Records) -> None:
    cells, groups = records
    for path, record in cells.items():
        if "/topk/" in path:
            record["facts"]["model"], record["facts"]["dataset"] = None, {}
    folder: Path = generator.write_folder(tmp_path / "run", cells, groups)
    page = build([folder], tmp_path / "out") / "README.md"
    assert "a dataset without a name (activations without a model)" in page.read_text()


def some_records(n: int) -> MergedRecords:
    cells = tuple(CellRecord(f"records/{i}.json", {"facts": {}, "number": i}) for i in range(n))
    groups = tuple(GroupRecord(f"groups/{i}.json", {"facts": {}, "number": 1000 + i}) for i in range(3))
    return MergedRecords(cells, groups, ())


def numbers(records: MergedRecords) -> list[int]:
    return [record.record["number"] for record in (*records.cells, *records.groups)]


@pytest.mark.parametrize("bad", [{0}, {9}, {3, 4}, {0, 5, 9, 1001}, {1000}, {1, 2, 3, 4, 5, 6, 7, 8, 9}])
def test_whatever_a_record_does_the_rest_is_shown(bad: set[int]) -> None:
    """A fault that no check knows of yet."""

    def make(records: MergedRecords) -> tuple[list[int], MergedRecords]:
        if bad & set(numbers(records)):
            raise IndexError("tuple index out of range")
        return numbers(records), records

    with pytest.raises(IndexError):
        surviving(some_records(10), make)
    shown, records = surviving(some_records(10), make, whatever=True)
    assert set(shown) == set(numbers(some_records(10))) - bad
    assert len(records.left_out) == len(bad)
    assert {item.reason for item in records.left_out} == {"it cannot be shown (IndexError: tuple index out of range)"}


def test_two_records_that_cannot_stand_together_cost_one_of_them() -> None:
    def make(records: MergedRecords) -> list[int]:
        if {2, 7} <= set(numbers(records)):
            raise ValueError("both")
        return numbers(records)

    assert set(surviving(some_records(10), make, whatever=True)) == set(numbers(some_records(10))) - {7}


def test_a_fault_of_ours_is_no_record_s() -> None:
    tried = []

    def make(records: MergedRecords) -> None:
        tried.append(records)
        raise IndexError("always")

    with pytest.raises(IndexError, match="always"):
        surviving(some_records(1000), make, whatever=True)
    assert len(tried) < 12


def test_a_page_survives_a_record_that_breaks_it(
    tmp_path: Path, generator: ModuleType, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, groups = records
    path = min(path for path in cells if "/topk/" in path)
    cells[path]["facts"]["details"]["bang"] = True
    folder = generator.write_folder(tmp_path / "run", cells, groups)
    whole = board_module.make_row

    def row(members: Any, *more: Any) -> Any:
        if any("bang" in one.facts["details"] for one in members):
            raise IndexError("tuple index out of range")
        return whole(members, *more)

    monkeypatch.setattr(board_module, "make_row", row)
    lines: list[str] = []
    monkeypatch.setattr(write_module, "page_html", lambda board: '<meta name="generator" content="saebench 0">')
    build([folder], tmp_path / "out", say=lines.append)
    assert lines == [f"warning: {path} is left out: it cannot be shown (IndexError: tuple index out of range)"]
    assert "topk" in summary([folder])
