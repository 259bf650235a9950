"""How far the seeds of one row agree, from group records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.read.records import CellRecord, GroupRecord, Json
from saebench.leaderboard.tables.agreement.values import (
    Agreement,
    Apart,
    Bin,
    Bins,
    Certificate,
    Chance,
    Reappearance,
    Recapture,
    SeedAgreement,
    SeedScore,
    ThresholdCurve,
)
from saebench.leaderboard.tables.details import log_edges, readable
from saebench.leaderboard.tables.statistics import MetricCell, jackknife_half

# Their own interval is in the details (log-normal, not a jackknife over seeds).
_OWN_INTERVAL = ("idealised-dictionary-size",)
_SILENT = "no group record of exactly these scores"


def score_columns(columns: Sequence[TableColumn]) -> tuple[TableColumn, ...]:
    """Columns of the table of agreement: group metrics, each with its chance and its corrected form below it."""
    return tuple(column for column in columns if column.group and not column.id.endswith(("-null", "-corrected")))


def group_of(cells: Sequence[CellRecord], groups: Sequence[GroupRecord]) -> GroupRecord | None:
    """The group record over exactly these scores that varies the init seed alone."""
    facts = cells[0].facts
    own = {cell.score_id for cell in cells}
    name = (facts["suite"], facts["entry"], facts["point"])
    for group in groups:
        named = (group.facts["suite"], group.facts["entry"], group.facts["point"]) == name
        if named and group.vary == {"init_seed"} and {str(m.get("score_id")) for m in group.members} == own:
            return group
    return None


def group_metrics(group: GroupRecord | None) -> dict[str, MetricCell]:
    """Every metric of a row's group; `half` is that of a 95 % jackknife t-interval over seeds."""
    if group is None:
        return {}
    described = group.facts.get("metric_info") or {}
    found = {}
    for name, metric in sorted(group.facts["metrics"].items()):
        info = described.get(name) or {}
        found[name] = MetricCell(
            value=metric["value"],
            half=None if name in _OWN_INTERVAL else jackknife_half(metric["stderr"], len(group.members)),
            n=metric["n"],
            sd=None,
            stderr=metric["stderr"],
            seeds={},
            reason=metric["reason"],
            samples=metric["n"],
            unit=metric["unit"],
            direction=metric["direction"],
            on=None,
            family=info.get("family") or "other",
            description=info.get("description") or "",
        )
    return found


def seed_agreement(group: GroupRecord | None, columns: Sequence[TableColumn]) -> SeedAgreement:
    """What a row shows of its seeds' agreement, of the scores that have a column.

    Raises:
        SuiteError: Details of a shape that cannot be read.
    """
    if group is None:
        return SeedAgreement(_SILENT, {})
    metrics = group_metrics(group)
    found = {column.id: metrics[column.id] for column in score_columns(columns) if column.id in metrics}
    if all(metric.value is None for metric in found.values()):
        reasons = sorted({str(metric.reason) for metric in found.values() if metric.reason})
        return SeedAgreement("; ".join(reasons) or "not measured", {})
    nulls = readable(chance_levels, group, group.path)
    return SeedAgreement(
        None,
        {id: _beside_chance(metrics, id, nulls.get(id)) for id in found},
        seeds=len(group.members),
        pairs=max(metric.samples for metric in found.values()),
        matching=readable(certificate, group, group.path),
        curve=readable(threshold_curve, group, group.path),
        reappearance=readable(reappearance, group, group.path),
        recapture=readable(recapture, group, group.path),
        activation=group.details.get("activation-match"),
        pair_scores=group.details.get("stability-pairs") or (),
        path=group.path,
    )


def _beside_chance(metrics: Mapping[str, MetricCell], id: str, null: Chance | None) -> SeedScore:
    score, corrected = (
        None if found is None else Agreement(found.value, found.half, found.samples, found.reason)
        for found in (metrics[id], metrics.get(f"{id}-corrected"))
    )
    assert score is not None
    return SeedScore(score.value, score.half, score.n, score.reason, null, corrected)


def chance_levels(group: GroupRecord) -> dict[str, Chance]:
    """Chance by score id: the larger of what random directions and untrained samples of the data reach."""
    details = group.details
    found = {str(id): level for id, level in (details.get("stability-null") or {}).items() if level is not None}
    for id, key in (("matched-correlation", "activation-match"), ("block-agreement", "block-agreement")):
        level = (details.get(key) or {}).get("null")
        if level is not None:
            found.setdefault(id, level)
    for name, metric in group.facts["metrics"].items():
        if name.endswith("-null") and not name.endswith("-data-null"):
            found.setdefault(name.removesuffix("-null"), {"value": metric["value"]})
    keys = ("low", "high", "draws", "n", "m", "d")
    levels = {
        id: Chance(float(level["value"]), **{key: level.get(key) for key in keys})
        for id, level in found.items()
        if level["value"] is not None
    }
    for id, level in (details.get("stability-data-null") or {}).items():
        random = levels.get(str(id))
        if random is None or random.value < level["value"]:
            other = None if random is None else random.value
            known = {key: level.get(key) for key in keys}
            levels[str(id)] = Chance(float(level["value"]), **known, untrained=True, other=other)
    return levels


def certificate(group: GroupRecord) -> Certificate | None:
    """Whether the matchings of all pairs were proven optimal; None where no pair says so."""
    pairs = [pair for pair in group.details.get("stability-pairs") or [] if "proven" in pair]
    if not pairs:
        return None
    gaps = [pair["gap"] for pair in pairs]
    gap = None if None in gaps else max(map(float, gaps))
    return Certificate(sum(bool(pair["proven"]) for pair in pairs), len(pairs), gap)


def threshold_curve(group: GroupRecord) -> ThresholdCurve | None:
    """The curve of shares over thresholds; None where it was not recorded."""
    curve = group.details.get("sfr-curve")
    if not curve or not curve.get("sfr"):
        return None
    size = len(curve["thresholds"])
    stderr = (curve.get("stderr") or {}).get("sfr")
    if any(
        values is not None and len(values) != size
        for values in (curve["sfr"], curve.get("sfr-alive"), curve.get("sfr-null"), stderr)
    ):
        raise ValueError("a curve is not as long as its thresholds")
    return ThresholdCurve(
        tuple(curve["thresholds"]),
        tuple(curve["sfr"]),
        half=None if stderr is None else tuple(jackknife_half(value, len(group.members)) for value in stderr),
        sfr_alive=None if curve.get("sfr-alive") is None else tuple(curve["sfr-alive"]),
        sfr_null=None if curve.get("sfr-null") is None else tuple(curve["sfr-null"]),
    )


def reappearance(group: GroupRecord) -> Reappearance | None:
    """How often a latent is found again in another seed; None where it was not recorded."""
    found = group.details.get("reappearance")
    if not found:
        return None
    seeds = int(found["seeds"])
    density, variance = found.get("by_density"), found.get("by_variance_share")
    return Reappearance(
        seeds,
        found["share"],
        found["n"],
        density=_bins(density, seeds),
        variance=_bins(variance, seeds),
        reasons={
            kind: by["reason"] for kind, by in (("density", density), ("variance", variance)) if by and by.get("reason")
        },
    )


def _bins(by: Json | None, seeds: int) -> Bins | None:
    if not by or "edges" not in by:
        return None
    columns = (by["n"], by["mean"], by["stderr"])
    bins = tuple(
        Bin(float(low), float(high), int(n), float(mean), jackknife_half(error, seeds))
        for (low, high), n, mean, error in zip(pairwise(log_edges(by["edges"])), *columns, strict=True)
        if n and mean is not None
    )
    apart = {key: by[key] for key in ("dead", "not_positive") if by.get(key) and by[key]["n"]}
    return Bins(bins, {key: Apart(int(item["n"]), item["mean"]) for key, item in apart.items()})


def recapture(group: GroupRecord) -> Recapture | None:
    """Distinct latents that k seeds together find, and the extrapolated total; None where it was not recorded."""
    found = group.details.get("recapture")
    if not found:
        return None
    distinct = tuple(float(value) for value in found["distinct"])
    k = found.get("k")
    ks = tuple(int(value) for value in k) if isinstance(k, list | tuple) else tuple(range(1, len(distinct) + 1))
    if len(ks) != len(distinct):
        raise ValueError("as many counts of distinct latents as numbers of seeds are needed")
    estimate = None if found["estimate"] is None else float(found["estimate"])
    kept = ("low", "high", "method", "assumptions", "n_alive", "singletons", "doubletons", "stderr", "reason")
    coverage = distinct[-1] / estimate if estimate else None
    return Recapture(ks, distinct, estimate, coverage, **{key: found.get(key) for key in kept})
