"""Records as pandas frames, for people's own analysis."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from saebench.leaderboard.read.merge import MergedRecords, merged_records, mixed_versions
from saebench.leaderboard.read.records import CellRecord, Json

COLUMNS = (
    "suite", "entry", "point", "architecture", "control", "model", "hookpoint", "training_dataset", "d_sae",
    "init_seed", "data_seed", "status", "family", "metric", "value", "stderr", "n", "reason", "unit", "direction",
    "measured", "dataset", "seed", "slice", "mixed_versions", "metric_versions", "search", "validation", "cell_id",
    "score_id", "path",
)  # fmt: skip
GROUP_COLUMNS = (
    "suite", "entry", "point", "architecture", "control", "model", "hookpoint", "training_dataset", "d_sae", "vary",
    "members", "status", "family", "metric", "value", "stderr", "n", "reason", "unit", "direction", "group_id", "path",
)  # fmt: skip


def _read(folder: str | Path) -> MergedRecords:
    found = merged_records([Path(folder)])
    for item in found.left_out:
        if item.kind == "unreadable":
            warnings.warn(f"{item.path} is left out: {item.reason}", stacklevel=3)
    return found


def load(folder: str | Path) -> pd.DataFrame:
    """One row a part: (cell, metric, dataset, evaluation seed, slice).

    Candidates of a search (`tune`) are all there: `search` is its key, `validation` what it goes by. Comparing them by
    their other values is choosing on test data.

    Superseded records are dropped (the newest score of a cell is taken). Where the cells of one suite and place were
    scored with different metric versions, `mixed_versions` is True in all their rows: compare those numbers only within
    equal `metric_versions`. A cell that is not ok has one row without a metric whose `reason` says why. Group metrics
    (stability) belong to several cells: `load_groups` has them.

    Raises:
        SuiteError: No such folder, no records, or none that can be read.

    Warns:
        UserWarning: A record cannot be read and is left out.
    """
    found = _read(folder)
    tables: dict[tuple[Any, ...], list[CellRecord]] = defaultdict(list)
    for cell in found.cells:
        tables[(cell.facts["suite"], cell.place)].append(cell)
    mixed = {key: bool(mixed_versions(cells)) for key, cells in tables.items()}
    rows = [row for cell in found.cells for row in _rows(cell, mixed[(cell.facts["suite"], cell.place)])]
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _rows(cell: CellRecord, mixed: bool) -> Iterator[dict[str, Any]]:
    facts = cell.facts
    model = facts["model"] or {}
    versions = facts.get("metric_versions") or {}
    common = {
        "suite": facts["suite"],
        "entry": facts["entry"],
        "point": facts["point"],
        "architecture": facts["architecture"],
        "control": facts["control"],
        "model": model.get("id"),
        "hookpoint": model.get("hookpoint"),
        "training_dataset": facts["dataset"].get("name"),
        "d_sae": facts.get("d_sae"),
        "init_seed": facts["init_seed"],
        "data_seed": facts["data_seed"],
        "status": facts["status"],
        "mixed_versions": mixed,
        "metric_versions": " ".join(f"{name}={versions[name]}" for name in sorted(versions)),
        "search": cell.search,
        "validation": ((facts.get("tune") or {}).get("validation") or {}).get("value"),
        "cell_id": cell.cell_id,
        "score_id": cell.score_id,
        "path": cell.path,
    }
    info = facts.get("metric_info") or {}
    measured = cell.measured.get("metrics") or {}
    metrics = cell.metrics
    if not metrics:
        error = facts["error"] or {}
        yield {
            **common,
            "reason": f"{facts['status']}: {error.get('message') or 'no reason recorded'}",
            "measured": False,
        }
    for name in sorted(metrics):
        metric = metrics[name]
        shared = {
            "family": (info.get(name) or {}).get("family"),
            "metric": name,
            "unit": metric["unit"],
            "direction": metric["direction"],
            "measured": name in measured,
        }
        parts: Sequence[Json] = metric.get("parts") or [{**metric, "dataset": metric.get("on")}]
        for part in parts:
            own = {key: part.get(key) for key in ("value", "stderr", "n", "reason", "dataset", "seed", "slice")}
            yield {**common, **shared, **own}


def load_groups(folder: str | Path) -> pd.DataFrame:
    """One row a (group, metric): agreement of cells that differ only in `vary`.

    `vary` is `init_seed` (stability) or `dataset+init_seed` (agreement over datasets).
    A group over several entries or datasets has their names joined by ` + `. Raises as `load`.
    """
    rows = []
    for group in _read(folder).groups:
        facts = group.facts
        model = facts.get("model") or {}
        info = facts.get("metric_info") or {}
        for name in sorted(facts["metrics"]):
            metric = facts["metrics"][name]
            rows.append(
                {
                    **{
                        key: facts.get(key)
                        for key in ("suite", "entry", "point", "architecture", "control", "d_sae", "vary", "status")
                    },
                    "model": model.get("id"),
                    "hookpoint": model.get("hookpoint"),
                    "training_dataset": _trained_on(facts),
                    "members": len(facts["members"]),
                    "family": (info.get(name) or {}).get("family"),
                    "metric": name,
                    **{key: metric[key] for key in ("value", "stderr", "n", "reason", "unit", "direction")},
                    "group_id": group.record["group_id"],
                    "path": group.path,
                }
            )
    return pd.DataFrame(rows, columns=pd.Index(GROUP_COLUMNS))


def _trained_on(facts: Json) -> Any:
    if facts.get("datasets"):
        return " + ".join(map(str, facts["datasets"]))
    dataset = facts.get("dataset")
    return dataset.get("name") if isinstance(dataset, Mapping) else dataset
