"""Does the dataset matter more than the seed? One architecture, trained on several datasets with several seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saebench.artifacts import digest
from saebench.leaderboard.names import natural
from saebench.leaderboard.read.records import GroupRecord, Json
from saebench.leaderboard.tables.agreement.values import Agreement
from saebench.leaderboard.tables.details import readable
from saebench.leaderboard.tables.statistics import jackknife_half

KINDS = {"seeds": "other seed", "datasets": "other dataset", "both": "both other"}
"""What the two SAEs of a pair differ in."""

SHOWN = {"sfr-alive": "SFR alive", "matched-cosine": "matched cosine"}
"""The scores of the table; the first decides the verdict and has a chart."""

DIFFERENCE = "dataset-over-seed"
_VARY = {"dataset", "init_seed"}


@dataclass(frozen=True)
class KindScore(Agreement):
    """A score over the pairs of one kind, with the level of chance and the chance-corrected score."""

    null: float | None
    corrected: Agreement | None


@dataclass(frozen=True)
class DatasetOverSeed:
    """SFR alive across seeds minus across datasets: its interval, and what it says."""

    value: float | None
    half: float | None
    verdict: str
    reason: str | None


@dataclass(frozen=True)
class DatasetAgreement:
    """One group over datasets and seeds: scores by kind of pair.

    Attributes:
        reason: Why there are no scores.
        kinds: Scores by id, by kind of pair.
        rows: Labels of the rows it compares.
    """

    id: str
    label: str
    entries: tuple[str, ...]
    datasets: tuple[str, ...]
    seeds: int
    reason: str | None
    kinds: Mapping[str, Mapping[str, KindScore]]
    difference: DatasetOverSeed
    pair_scores: Sequence[Json]
    path: str
    rows: tuple[str, ...] = ()


def across_datasets(labels: Mapping[str, str], groups: Sequence[GroupRecord]) -> tuple[DatasetAgreement, ...]:
    """Groups over datasets and seeds all of whose members are in a table, in the order of their labels.

    A group whose members are a subset of another's is left out: it was scored before the others were trained.

    Args:
        labels: Label of its row, by score id.
        groups: All groups.
    """
    found = []
    for group in groups:
        members = {str(member.get("score_id")) for member in group.members}
        if group.vary == _VARY and members and members <= labels.keys():
            found.append((members, group))
    shown = []
    for members, group in found:
        if not any(members < other and _same(group, larger) for other, larger in found):
            rows = tuple(sorted({labels[member] for member in members}, key=natural))
            shown.append(replace(readable(agreement, group, group.path), rows=rows))
    names = [item.label for item in shown]
    told_apart = [
        item if names.count(item.label) == 1 else replace(item, label=f"{item.label} [{item.id[7:11]}]")
        for item in shown
    ]
    return tuple(sorted(told_apart, key=lambda item: natural(item.label)))


def _same(a: GroupRecord, b: GroupRecord) -> bool:
    return all(a.facts.get(key) == b.facts.get(key) for key in ("suite", "architecture", "point"))


def agreement(group: GroupRecord) -> DatasetAgreement:
    """One group: scores of the three kinds of pairs beside chance, and the difference with its verdict."""
    facts = group.facts
    seeds = len({member["init_seed"] for member in group.members})
    details = group.details.get("agreement") or {}
    bases = sorted({id for kind in details.values() for id in kind if not id.endswith(("-null", "-corrected"))})
    kinds = {}
    for kind in KINDS:
        scores = {**_from_metrics(facts["metrics"], kind), **(details.get(kind) or {})}
        kinds[kind] = {id: _beside(scores, id, seeds) for id in sorted({*bases, *SHOWN} & scores.keys())}
    found = [score for scores in kinds.values() for score in scores.values()]
    measured = any(score.value is not None for score in found)
    reasons = sorted({str(score.reason) for score in found if score.reason})
    point = "" if facts["point"] == "default" else f" {facts['point']}"
    named = facts.get("datasets") or [member.get("dataset") for member in group.members]
    return DatasetAgreement(
        id="across-" + digest([str(group.record.get("group_id"))], 8),
        label=f"{facts.get('architecture') or facts['entry']}{point}",
        entries=_names(member.get("entry") or facts["entry"] for member in group.members),
        datasets=_names(name for name in named if name),
        seeds=seeds,
        reason=None if measured else "; ".join(reasons) or "not measured",
        kinds=kinds,
        difference=_difference(facts["metrics"].get(DIFFERENCE), seeds),
        pair_scores=group.details.get("agreement-pairs") or (),
        path=group.path,
    )


def _names(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted({str(name) for name in names}, key=natural))


def _from_metrics(metrics: Json, kind: str) -> dict[str, Any]:
    end = f"-across-{kind}"
    return {id.removesuffix(end): metric for id, metric in metrics.items() if id.endswith(end)}


def _beside(scores: Json, id: str, seeds: int) -> KindScore:
    corrected = scores.get(f"{id}-corrected")
    nulls = [scores[f"{id}{end}"]["value"] for end in ("-null", "-data-null") if f"{id}{end}" in scores]
    return KindScore(
        *_estimate(scores[id], seeds),
        null=max((level for level in nulls if level is not None), default=None),
        corrected=None if corrected is None else Agreement(*_estimate(corrected, seeds)),
    )


def _estimate(score: Json, seeds: int) -> tuple[float | None, float | None, int | None, str | None]:
    value = score["value"]
    half = None if value is None else jackknife_half(score.get("stderr"), seeds)
    return value, half, score.get("n"), score.get("reason")


def _difference(metric: Json | None, seeds: int) -> DatasetOverSeed:
    if metric is None:
        return DatasetOverSeed(None, None, "not known", "not measured")
    value, half, _, reason = _estimate(metric, seeds)
    if value is not None and half is None:
        reason = "no interval: leaving out one seed must leave two"
    return DatasetOverSeed(value, half, verdict(value, half), reason)


def verdict(value: float | None, half: float | None) -> str:
    """What agreement across seeds minus agreement across datasets says, as far as its 95 % interval can tell."""
    if value is None or half is None:
        return "not known"
    if abs(value) <= half:
        return "tie"
    return "dataset matters more" if value > 0 else "seed matters more"
