"""Rows of the leaderboard: the seeds of one (entry, point) taken together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from saebench.artifacts import digest
from saebench.leaderboard.pages.columns import COLUMNS, Column
from saebench.leaderboard.read.merge import CellRecord, GroupRecord
from saebench.leaderboard.tables.details import contexts, density, ffr_sweep, readable
from saebench.leaderboard.tables.seeds import group_metrics, group_of, seed_agreement
from saebench.leaderboard.tables.statistics import mean, over_seeds
from saebench.leaderboard.tables.trajectories import (
    mean_or_none,
    mean_trajectory,
    numerics,
    seconds_spent,
    spent_before,
    training_trajectory,
)

_WHOLE = (None, "", "all")


def row_key(cell: CellRecord) -> tuple[Any, ...]:
    """Cells with equal keys differ in `init_seed` alone."""
    return (*cell.slot[:5], cell.variant)


def evaluation_key(cell: CellRecord) -> tuple[Any, ...]:
    """What the scores were taken on: cells with different keys cannot share a table."""
    evaluation = cell.facts["evaluation"] or {}
    datasets = [(data.get("recipe"), data.get("content")) for data in evaluation.get("datasets") or []]
    settings = [evaluation.get(name) for name in ("seeds", "tokens", "loss_tokens", "density_tokens", "thresholds")]
    settings += [evaluation[name] for name in ("part",) if evaluation.get(name)]
    return (tuple(datasets), repr(settings))


def make_row(
    cells: Sequence[CellRecord], planned: Sequence[CellRecord], groups: Sequence[GroupRecord], label: str
) -> dict[str, Any]:
    """One row from the scored cells of an (entry, point); `planned` also holds those that failed."""
    first = cells[0]
    facts = first.facts
    group = group_of(cells, groups)
    metrics = {name: _metric(cells, name) for name in sorted({name for cell in cells for name in cell.metrics})}
    cost = _cost(cells)
    runs = [readable(training_trajectory, cell, cell.path) for cell in cells]
    row: dict[str, Any] = {
        "id": "row-" + digest(list(map(str, row_key(first))), 8),
        "label": label,
        "entry": facts["entry"],
        "point": facts["point"],
        "sweep": facts.get("sweep") or {},
        "architecture": facts["architecture"],
        "architecture_version": facts.get("architecture_version"),
        "base": facts.get("base"),
        "config": facts["config"],
        "tags": facts.get("tags") or [],
        "control": facts["control"],
        "training_dataset": facts["dataset"].get("name"),
        "training_recipe": facts["dataset"].get("recipe"),
        "training_contents": sorted(
            {str(cell.facts["dataset"].get("content")) for cell in cells if cell.facts["dataset"].get("content")}
        ),
        "epochs": facts["dataset"].get("epochs"),
        "train": facts.get("train"),
        "d_in": facts.get("d_in"),
        "d_sae": facts.get("d_sae"),
        "expected_l0": facts.get("expected_l0"),
        "data_seed": facts["data_seed"],
        "budget": facts["budget"] or {},
        "seeds": [cell.facts["init_seed"] for cell in cells],
        "planned_seeds": sorted({cell.facts["init_seed"] for cell in planned}),
        "cost": cost,
        "metrics": metrics,
        "group": group_metrics(group),
        "stability": None if facts["control"] else seed_agreement(group),
        "other_datasets": _other_datasets(cells),
        "density": readable(density, cells, first.path),
        "ffr_sweep": readable(ffr_sweep, cells, first.path),
        "trajectory": mean_trajectory(runs),
        "contexts": readable(contexts, cells[:1], first.path),
        "standing": None,
        "tune": None,
        "deterministic": all(bool(cell.facts.get("deterministic", True)) for cell in cells),
        "numerics": readable(numerics, cells, first.path),
        "versions": _versions(cells),
        "cells": [
            {
                "seed": cell.facts["init_seed"],
                "cell_id": cell.cell_id,
                "score_id": cell.score_id,
                "path": cell.path,
                "before": spent_before(cell),
                "trajectory": run,
            }
            for cell, run in zip(cells, runs, strict=True)
        ],
    }
    row["columns"] = {column.id: _shown(row, column) for column in COLUMNS}
    return row


def _metric(cells: Sequence[CellRecord], name: str) -> dict[str, Any]:
    values, stderrs, reasons, tokens, found = {}, [], [], [], {}
    for cell in cells:
        metric = cell.metrics.get(name)
        if metric is None:
            reasons.append("not among the metrics of this record")
            continue
        found = dict(metric)
        tokens.append(metric["n"])
        if metric["value"] is None:
            reasons.append(str(metric["reason"] or "no reason recorded"))
            continue
        values[int(cell.facts["init_seed"])] = float(metric["value"])
        if metric["stderr"] is not None:
            stderrs.append(float(metric["stderr"]))
    estimate = asdict(over_seeds(values, stderrs=stderrs, reason="; ".join(sorted(set(reasons))) or None))
    info: Mapping[str, Any] = next(
        (cell.facts["metric_info"][name] for cell in cells if name in (cell.facts.get("metric_info") or {})), {}
    )
    return {
        **estimate,
        "samples": tokens[0] if tokens else 0,
        "unit": found.get("unit") or info.get("unit"),
        "direction": found.get("direction") or info.get("direction"),
        "on": found.get("on"),
        "family": info.get("family") or "other",
        "description": info.get("description") or "",
    }


def _tokens(cell: CellRecord, kind: str, unit: str = "tokens") -> float:
    part = (cell.facts["spent"] or {}).get(kind) or {}
    return float(part.get(unit) or 0)


def _cost(cells: Sequence[CellRecord]) -> dict[str, float | None]:
    """Mean over seeds of tokens, FLOPs and seconds, by what they were spent on; `all` adds data making and parent to training."""
    cost: dict[str, float | None] = {}
    for unit in ("tokens", "flops", "seconds"):
        spent = {}
        for kind in ("train", "data", "parent", "forward", "scoring"):
            spent[kind] = mean_or_none(
                [seconds_spent(cell, kind) if unit == "seconds" else _tokens(cell, kind, unit) for cell in cells]
            )
            cost[f"{kind}_{unit}"] = spent[kind]
        parts = [part for kind in ("train", "data", "parent") if (part := spent[kind]) is not None]
        cost[f"all_{unit}"] = sum(parts) if len(parts) == 3 else None
    return cost


def _shown(row: Mapping[str, Any], column: Column) -> dict[str, Any]:
    """What stands in one cell of the table: value, half-width, count of seeds, reason; fractions already in percent."""
    if column.id.startswith("cost:"):
        return {
            "value": row["cost"][f"{column.id.removeprefix('cost:')}_tokens"],
            "half": None,
            "n": len(row["seeds"]),
            "reason": None,
        }
    metric = row["metrics"].get(column.id)
    if metric is None:
        metric = row["group"].get(column.id)
    if metric is None:
        return {"value": None, "half": None, "n": 0, "reason": "not measured"}
    half = metric["half"]
    scale = 100.0 if column.percent else 1.0
    value = None if metric["value"] is None else metric["value"] * scale
    return {
        "value": value,
        "half": None if half is None else half * scale,
        "n": metric["n"],
        "reason": metric["reason"],
    }


def _other_datasets(cells: Sequence[CellRecord]) -> dict[str, dict[str, Any]]:
    """Fidelity on every evaluation dataset, where there are several: dataset -> metric -> estimate over init seeds."""
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        for name in ("variance-explained", "ce-recovered-zero", "ce-recovered-mean", "l0"):
            for part in (cell.metrics.get(name) or {}).get("parts") or []:
                if part.get("slice") in _WHOLE and part.get("value") is not None and part.get("dataset"):
                    found[part["dataset"]][name][int(cell.facts["init_seed"])].append(float(part["value"]))
    if len(found) < 2:
        return {}
    return {
        dataset: {
            name: asdict(over_seeds({seed: mean(values) for seed, values in seeds.items()}))
            for name, seeds in metrics.items()
        }
        for dataset, metrics in found.items()
    }


def _versions(cells: Sequence[CellRecord]) -> dict[str, Any]:
    """Packages, plugins, metric specs and machines behind a row; a name with several values lists them all."""
    packages: dict[str, set[str]] = defaultdict(set)
    plugins: dict[str, set[str]] = defaultdict(set)
    metrics: dict[str, set[str]] = defaultdict(set)
    hosts: dict[str, set[str]] = defaultdict(set)
    for cell in cells:
        for name, version in (cell.measured.get("versions") or {}).items():
            packages[name].add(str(version))
        for name, origin in (cell.measured.get("plugins") or {}).items():
            plugins[name].add(f"{origin.get('distribution')} {origin.get('version')}")
        for name, version in (cell.facts.get("metric_versions") or {}).items():
            metrics[name].add(str(version))
        for name, value in (cell.measured.get("host") or {}).items():
            hosts[name].add(str(value))
        if cell.measured.get("threads") is not None:
            hosts["threads"].add(str(cell.measured["threads"]))
    kinds = {"packages": packages, "plugins": plugins, "metrics": metrics, "host": hosts}
    return {kind: {name: sorted(values) for name, values in sorted(found.items())} for kind, found in kinds.items()}
