"""Does the dataset matter more than the seed? One architecture and config, trained on several datasets with several seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saebench.artifacts import digest
from saebench.leaderboard.pages.names import natural
from saebench.leaderboard.read.merge import GroupRecord
from saebench.leaderboard.tables.details import readable
from saebench.leaderboard.tables.seeds import members_of, varies
from saebench.leaderboard.tables.statistics import jackknife_half

KINDS = {"seeds": "other seed", "datasets": "other dataset", "both": "both other"}
"""What the two SAEs of a pair differ in."""

SHOWN = {"sfr-alive": "SFR alive", "matched-cosine": "matched cosine"}
"""The scores of the table; the first decides the verdict and is drawn."""

DIFFERENCE = "dataset-over-seed"
_VARY = {"dataset", "init_seed"}


def across_datasets(rows: Sequence[Mapping[str, Any]], groups: Sequence[GroupRecord]) -> list[dict[str, Any]]:
    """Groups over datasets and seeds all of whose members stand in `rows`, in the order of their labels.

    A group whose members are a part of another's is left out: it was scored before the others were trained.
    """
    standing = {cell["score_id"]: row["label"] for row in rows for cell in row["cells"]}
    found = []
    for group in groups:
        members = {str(member.get("score_id")) for member in members_of(group)}
        if varies(group) == _VARY and members and members <= standing.keys():
            found.append((members, group))
    whole = [
        (members, group)
        for members, group in found
        if not any(members < other and _same(group, larger) for other, larger in found)
    ]
    shown = [readable(agreement, group, group.path) for _, group in whole]
    for item, (members, _) in zip(shown, whole, strict=True):
        item["rows"] = sorted({standing[member] for member in members}, key=natural)
    labels = [item["label"] for item in shown]
    for item in shown:
        if labels.count(item["label"]) > 1:
            item["label"] += f" [{item['id'].removeprefix('across-')[:4]}]"
    return sorted(shown, key=lambda item: natural(item["label"]))


def _same(a: GroupRecord, b: GroupRecord) -> bool:
    return all(a.facts.get(key) == b.facts.get(key) for key in ("suite", "architecture", "point"))


def agreement(group: GroupRecord) -> dict[str, Any]:
    """One group: scores of the three kinds of pairs beside chance, and the difference with its verdict; `reason` says why there are none."""
    facts = group.facts
    members = members_of(group)
    seeds = len({member["init_seed"] for member in members})
    details = (facts.get("details") or {}).get("agreement") or {}
    bases = sorted({id for kind in details.values() for id in kind if not id.endswith(("-null", "-corrected"))})
    kinds: dict[str, dict[str, Any]] = {}
    for kind in KINDS:
        scores = {**_from_metrics(facts["metrics"], kind), **(details.get(kind) or {})}
        kinds[kind] = {id: _beside(scores, id, seeds) for id in sorted({*bases, *SHOWN} & scores.keys())}
    found = [score for scores in kinds.values() for score in scores.values()]
    measured = any(score["value"] is not None for score in found)
    reasons = sorted({str(score["reason"]) for score in found if score["reason"]})
    point = "" if facts["point"] == "default" else f" {facts['point']}"
    return {
        "id": "across-" + digest([str(group.record.get("group_id"))], 8),
        "label": f"{facts.get('architecture') or facts['entry']}{point}",
        "entries": sorted({str(member.get("entry") or facts["entry"]) for member in members}, key=natural),
        "datasets": _datasets(facts, members),
        "seeds": seeds,
        "reason": None if measured else "; ".join(reasons) or "not measured",
        "kinds": kinds,
        "difference": _difference(facts["metrics"].get(DIFFERENCE), seeds),
        "pair_scores": (facts.get("details") or {}).get("agreement-pairs") or [],
        "path": group.path,
    }


def _datasets(facts: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> list[str]:
    named = facts.get("datasets") or [member.get("dataset") for member in members]
    return sorted({str(name) for name in named if name}, key=natural)


def _from_metrics(metrics: Mapping[str, Any], kind: str) -> dict[str, Any]:
    end = f"-across-{kind}"
    return {id.removesuffix(end): metric for id, metric in metrics.items() if id.endswith(end)}


def _beside(scores: Mapping[str, Any], id: str, seeds: int) -> dict[str, Any]:
    null, corrected = scores.get(f"{id}-null"), scores.get(f"{id}-corrected")
    return {
        **_estimate(scores[id], seeds),
        "null": None if null is None else null["value"],
        "corrected": None if corrected is None else _estimate(corrected, seeds),
    }


def _estimate(score: Mapping[str, Any], seeds: int) -> dict[str, Any]:
    value = score["value"]
    return {
        "value": value,
        "half": None if value is None else jackknife_half(score.get("stderr"), seeds),
        "n": score.get("n"),
        "reason": score.get("reason"),
    }


def _difference(metric: Mapping[str, Any] | None, seeds: int) -> dict[str, Any]:
    """SFR alive across seeds minus across datasets: its interval, and in words what it says."""
    if metric is None:
        return {"value": None, "half": None, "verdict": "not known", "reason": "not measured"}
    found = _estimate(metric, seeds)
    value, half = found["value"], found["half"]
    reason = found["reason"]
    if value is not None and half is None:
        reason = "no interval: leaving out one seed must leave two"
    return {"value": value, "half": half, "verdict": verdict(value, half), "reason": reason}


def verdict(value: float | None, half: float | None) -> str:
    """What agreement across seeds minus agreement across datasets says, as far as its 95 % interval can tell."""
    if value is None or half is None:
        return "not known"
    if abs(value) <= half:
        return "tie"
    return "dataset matters more" if value > 0 else "seed matters more"
