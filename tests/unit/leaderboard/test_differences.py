from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard import diff

Records = dict[str, dict[str, Any]]


def test_equal_facts_have_no_difference_whatever_was_measured(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    for record in [*cells.values(), *groups.values()]:
        record["measured"] = {"times": {"train_s": 1e6}, "host": {"cpu": "another"}}
    assert diff(folder, generator.write_folder(tmp_path, cells, groups)) == []


def test_a_changed_value_names_the_cell_and_the_key(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    record = next(record for path, record in cells.items() if "/topk/k8-s1-" in path)
    old = record["facts"]["metrics"]["fvu"]["value"]
    record["facts"]["metrics"]["fvu"]["value"] = 0.125
    (found,) = diff(folder, generator.write_folder(tmp_path, cells, groups))
    assert (found.kind, found.key, found.a, found.b) == ("differs", "metrics.fvu.value", old, 0.125)
    assert str(found) == f"quickstart: topk k8 s1 (docs-lm layers.2): metrics.fvu.value: {old!r} against 0.125"


def test_a_cell_that_stands_on_one_side_only(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    del cells[next(path for path in cells if "/topk/k8-s1-" in path)]
    other = generator.write_folder(tmp_path, cells, groups)
    assert [str(item) for item in diff(folder, other)] == ["quickstart: topk k8 s1 (docs-lm layers.2): only in a"]
    assert [item.kind for item in diff(other, folder)] == ["only in b"]


def test_copies_of_a_record_are_no_difference(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    path = next(path for path in cells if "/topk/k8-s1-" in path)
    cells[path.replace("k8-s1", "zz")] = cells[path.replace("/topk/", "/jumprelu/")] = cells[path]
    other = generator.write_folder(tmp_path, cells, groups)
    assert diff(folder, other) == diff(other, folder) == []


def test_a_group_difference_is_found(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    groups["groups/quickstart/topk/k8.json"]["facts"]["metrics"]["sfr"]["value"] = 0.0
    (found,) = diff(folder, generator.write_folder(tmp_path, cells, groups))
    assert found.where.startswith("group quickstart/topk/k8")
    assert found.key == "metrics.sfr.value"


def test_another_corpus_is_said_first_and_once(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    for record in cells.values():
        facts = record["facts"]
        for dataset in [facts["dataset"], *((facts["evaluation"] or {}).get("datasets") or [])]:
            if dataset["name"] == "docs":
                dataset["content"] = "e" * 64
    found = diff(folder, generator.write_folder(tmp_path, cells, groups))
    assert [item.kind for item in found[:2]] == ["corpus differs", "corpus differs"]
    assert [item.where for item in found[:2]] == ["docs (held-out part)", "docs (training part)"]
    assert str(found[0]).startswith("corpus differs: docs (held-out part): ")
    assert {item.kind for item in found[2:]} == {"differs"}


def test_a_changed_config_is_a_difference_not_two_cells(
    tmp_path: Path, generator: ModuleType, folder: Path, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    record = next(record for path, record in cells.items() if "/topk/k8-s1-" in path)
    record["facts"]["config"]["k"] = 9
    record["cell_id"] = "0" * 64
    found = diff(folder, generator.write_folder(tmp_path, cells, groups))
    assert {(item.kind, item.key) for item in found} == {("differs", "cell_id"), ("differs", "config.k")}


def test_a_folder_without_records_is_an_error(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(SuiteError, match="no records"):
        diff(folder, tmp_path)
