from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.api.errors import SuiteError
from saebench.leaderboard import load, load_groups

Records = dict[str, dict[str, Any]]


def test_one_row_a_part(folder: Path, records: tuple[Records, Records]) -> None:
    frame = load(folder)
    parts = sum(
        len(metric["parts"]) for record in records[0].values() for metric in record["facts"]["metrics"].values()
    )
    scored = sum(record["facts"]["status"] == "ok" for record in records[0].values())
    assert len(frame) == parts + scored + (
        len(records[0]) - scored
    )  # + train-device-s of each scored cell + a row a failure
    row = frame[(frame.entry == "topk") & (frame.point == "k8") & (frame.init_seed == 1) & (frame.metric == "fvu")]
    assert list(row.dataset) == ["docs", "near"]
    assert set(row.direction) == {"lower"}
    assert row.value.notna().all()
    assert not frame.duplicated(["suite", "cell_id", "entry", "metric", "dataset", "seed", "slice"]).any()


def test_measured_metrics_are_marked(folder: Path) -> None:
    frame = load(folder)
    assert frame[frame.metric == "train-device-s"].measured.all()
    assert not frame[frame.metric == "fvu"].measured.any()


def test_a_cell_that_failed_is_a_row_with_its_reason(folder: Path) -> None:
    failed = load(folder).query("status == 'diverged'")
    assert list(failed.metric.isna()) == [True]
    assert failed.reason.iloc[0].startswith("diverged: the loss was not finite")


def test_null_values_keep_their_reason(folder: Path) -> None:
    null = load(folder).query("entry == 'expander' and metric == 'kl' and init_seed == 0 and point == 'k16'")
    assert null.value.isna().all()
    assert set(null.reason) == {"no token fired"}


def test_mixed_metric_versions_are_marked(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    cells, groups = records
    changed = next(record for path, record in cells.items() if "/topk/" in path)
    changed["facts"]["metric_versions"]["density"] = "2"
    frame = load(generator.write_folder(tmp_path, cells, groups))
    on_model = frame.model.notna()
    assert frame[on_model].mixed_versions.all()
    assert not frame[~on_model].mixed_versions.any()


def test_group_metrics_have_their_own_frame(folder: Path, records: tuple[Records, Records]) -> None:
    frame = load_groups(folder)
    assert len(frame) == sum(len(group["facts"]["metrics"]) for group in records[1].values())
    assert set(frame.metric) == {"sfr", "sfr-alive", "matched-cosine", "matched-cosine-null"}


def test_no_records_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no records"):
        load(tmp_path)
