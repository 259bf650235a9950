"""Rows from records: the seeds of one (entry, point) taken together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from saebench.artifacts import digest
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.read.records import CellRecord, GroupRecord, Json
from saebench.leaderboard.tables.agreement.seeds import group_metrics, group_of, seed_agreement
from saebench.leaderboard.tables.details import contexts, density, readable
from saebench.leaderboard.tables.ranking.noise import noise_of
from saebench.leaderboard.tables.row import Row, SeedCell
from saebench.leaderboard.tables.statistics import Estimate, MetricCell, mean, over_seeds
from saebench.leaderboard.tables.trajectories import (
    ALL_IN,
    UNITS,
    mean_or_none,
    mean_trajectory,
    numerics,
    spent,
    spent_before,
    spent_on_forwards,
    sum_or_none,
    training_trajectory,
)

_WHOLE = (None, "", "all")


def row_key(cell: CellRecord) -> tuple[Any, ...]:
    """Cells with equal keys differ in `init_seed` only."""
    return (*cell.slot[:5], cell.variant)


def evaluation_key(cell: CellRecord) -> tuple[Any, ...]:
    """What the scores were taken on: cells with different keys cannot share a table."""
    evaluation = cell.facts["evaluation"] or {}
    datasets = [(data.get("recipe"), data.get("content")) for data in evaluation.get("datasets") or []]
    settings = [evaluation.get(name) for name in ("seeds", "tokens", "loss_tokens", "density_tokens", "thresholds")]
    settings += [evaluation[name] for name in ("part",) if evaluation.get(name)]
    return (tuple(datasets), repr(settings))


def make_row(
    cells: Sequence[CellRecord],
    planned: Sequence[CellRecord],
    groups: Sequence[GroupRecord],
    label: str,
    columns: Sequence[TableColumn],
) -> Row:
    """One row from the scored cells of an (entry, point); `planned` also holds those that failed."""
    first = cells[0]
    facts = first.facts
    dataset = facts["dataset"]
    group = group_of(cells, groups)
    runs = [readable(training_trajectory, cell, cell.path) for cell in cells]
    return Row(
        id="row-" + digest(list(map(str, row_key(first))), 8),
        label=label,
        entry=facts["entry"],
        point=facts["point"],
        sweep=facts.get("sweep") or {},
        architecture=facts["architecture"],
        architecture_version=facts.get("architecture_version"),
        base=facts.get("base"),
        config=facts["config"],
        tags=tuple(facts.get("tags") or ()),
        control=facts["control"],
        training_dataset=dataset.get("name"),
        training_recipe=dataset.get("recipe"),
        training_contents=_names(cell.facts["dataset"].get("content") for cell in cells),
        epochs=dataset.get("epochs"),
        train=facts.get("train"),
        d_in=facts.get("d_in"),
        d_sae=facts.get("d_sae"),
        expected_l0=facts.get("expected_l0"),
        data_seed=facts["data_seed"],
        budget=facts["budget"] or {},
        seeds=tuple(cell.facts["init_seed"] for cell in cells),
        planned_seeds=tuple(sorted({cell.facts["init_seed"] for cell in planned})),
        cost=_cost(cells),
        metrics={name: _metric(cells, name) for name in sorted({name for cell in cells for name in cell.metrics})},
        group=group_metrics(group),
        stability=None if facts["control"] else seed_agreement(group, columns),
        noise=noise_of(cells),
        other_datasets=_other_datasets(cells, [column.id for column in columns if column.ranks]),
        density=readable(density, cells, first.path),
        trajectory=mean_trajectory(runs),
        contexts=readable(contexts, cells[:1], first.path),
        deterministic=all(bool(cell.facts.get("deterministic", True)) for cell in cells),
        numerics=readable(numerics, cells, first.path),
        versions=_versions(cells),
        cells=tuple(
            SeedCell(
                cell.facts["init_seed"],
                cell.cell_id,
                cell.score_id,
                cell.path,
                spent_before(cell),
                spent_on_forwards(cell),
                run,
                parent=cell.facts.get("parent"),
            )
            for cell, run in zip(cells, runs, strict=True)
        ),
        continued=bool(facts.get("continued")),
        copies=_copies(cells),
        unranked=_unranked(cells),
        curved=any((cell.facts.get("details") or {}).get("decode_linear") is False for cell in cells),
    )


def _copies(cells: Sequence[CellRecord]) -> tuple[int, ...]:
    """Seeds whose weights are those of an earlier seed: they are no other training."""
    seen: set[str] = set()
    copies = []
    for cell in cells:
        weights = cell.facts.get("weights_digest")
        if weights in seen:
            copies.append(int(cell.facts["init_seed"]))
        elif isinstance(weights, str):
            seen.add(weights)
    return tuple(copies)


def _unranked(cells: Sequence[CellRecord]) -> str | None:
    if any(cell.facts.get("batch_coupled") is True for cell in cells):
        return "its codes of a token depend on the other tokens of the batch"
    copies = _copies(cells)
    if copies and len(cells) - len(copies) < 2:
        return "all seeds have the same weights: one training, and no interval"
    return None


def _metric(cells: Sequence[CellRecord], name: str) -> MetricCell:
    values, stderrs, reasons, tokens = {}, [], [], []
    found: Json = {}
    for cell in cells:
        metric = cell.metrics.get(name)
        if metric is None:
            reasons.append("not among the metrics of this record")
            continue
        found = metric
        tokens.append(metric["n"])
        if metric["value"] is None:
            reasons.append(str(metric["reason"] or "no reason recorded"))
            continue
        values[int(cell.facts["init_seed"])] = float(metric["value"])
        if metric["stderr"] is not None:
            stderrs.append(float(metric["stderr"]))
    info: Json = next(
        (cell.facts["metric_info"][name] for cell in cells if name in (cell.facts.get("metric_info") or {})), {}
    )
    estimate = over_seeds(values, stderrs=stderrs, reason="; ".join(sorted(set(reasons))) or None)
    return MetricCell(
        **vars(estimate),
        samples=tokens[0] if tokens else 0,
        unit=found.get("unit") or info.get("unit"),
        direction=found.get("direction") or info.get("direction"),
        on=found.get("on"),
        family=info.get("family") or "other",
        description=info.get("description") or "",
    )


def _cost(cells: Sequence[CellRecord]) -> dict[str, float | None]:
    """Mean over seeds of tokens, FLOPs and seconds, by what they were spent on; `all` is their sum (`ALL_IN`)."""
    cost: dict[str, float | None] = {}
    for unit in UNITS:
        for kind in ("train", "data", "parent", "forward", "scoring"):
            cost[f"{kind}_{unit}"] = mean_or_none([spent(cell, kind, unit) for cell in cells])
        cost[f"all_{unit}"] = sum_or_none(cost[f"{kind}_{unit}"] for kind in ALL_IN[unit])
    return cost


def _other_datasets(cells: Sequence[CellRecord], metrics: Sequence[str]) -> dict[str, dict[str, Estimate]]:
    """Ranked metrics by evaluation dataset, where there are several: estimates over init seeds."""
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell in cells:
        for name in metrics:
            for part in (cell.metrics.get(name) or {}).get("parts") or []:
                if part.get("slice") in _WHOLE and part.get("value") is not None and part.get("dataset"):
                    found[part["dataset"]][name][int(cell.facts["init_seed"])].append(float(part["value"]))
    if len(found) < 2:
        return {}
    return {
        dataset: {
            name: over_seeds({seed: mean(values) for seed, values in seeds.items()})
            for name, seeds in by_metric.items()
        }
        for dataset, by_metric in found.items()
    }


def _names(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in names if name}))


def _versions(cells: Sequence[CellRecord]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Packages, plugins, metric specs and machines behind a row; a name with several values lists them all."""
    found: dict[str, dict[str, set[str]]] = {
        kind: defaultdict(set) for kind in ("packages", "plugins", "metrics", "host")
    }
    for cell in cells:
        measured = cell.measured
        plugins = {
            name: f"{origin.get('distribution')} {origin.get('version')}"
            for name, origin in (measured.get("plugins") or {}).items()
        }
        threads = {} if measured.get("threads") is None else {"threads": measured["threads"]}
        for kind, values in (
            ("packages", measured.get("versions") or {}),
            ("plugins", plugins),
            ("metrics", cell.facts.get("metric_versions") or {}),
            ("host", {**(measured.get("host") or {}), **threads}),
        ):
            for name, value in values.items():
                found[kind][name].add(str(value))
    return {kind: {name: tuple(sorted(by[name])) for name in sorted(by)} for kind, by in found.items()}
