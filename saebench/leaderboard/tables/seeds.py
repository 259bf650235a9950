"""How far the seeds of one row agree: scores beside chance, certificates, threshold curves, reappearance and recapture, from group records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from saebench.leaderboard.read.merge import CellRecord, GroupRecord
from saebench.leaderboard.tables.details import log_edges, readable
from saebench.leaderboard.tables.statistics import jackknife_half


@dataclass(frozen=True)
class Score:
    """One column of the table of agreement.

    Attributes:
        id: Metric id.
        label: Heading.
        hint: One line shown on hover.
        own_chance: Chance is taken out of the score by its definition: nothing is left to correct.
    """

    id: str
    label: str
    hint: str
    own_chance: bool = False


SCORES = (
    Score("sfr", "SFR", "matched decoder pairs with cosine > 0.7, over the smaller dictionary"),
    Score("sfr-alive", "SFR alive", "SFR with the latents that are dead in their own SAE dropped before matching"),
    Score("strict-shared", "strict shared", "decoder and encoder matchings pair the same latents, both cosines at least 0.7"),
    Score("matched-cosine", "matched cosine", "mean decoder cosine of the pairs matched one to one"),
    Score("mmcs", "MMCS", "mean over latents of the best cosine with any latent of the other SAE (many to one)"),
    Score("matched-correlation", "matched correlation", "mean Pearson correlation of codes on held-out tokens under their own one-to-one matching"),
    Score("block-agreement", "blocks", "mean cos² of principal angles between blocks of latents matched one to one, the share of one random pair taken out"),
    Score("subspace-agreement", "orphans' subspace", "how far the unmatched latents of both span one subspace; chance is taken out already", True),
)  # fmt: skip
"""What the table shows, where any row has it."""

# Their own interval stands in the details (log-normal, not a jackknife over seeds).
_OWN_INTERVAL = ("idealised-dictionary-size",)
_SILENT = "no group record of exactly these scores"


def members_of(group: GroupRecord) -> list[Mapping[str, Any]]:
    """The members that were scored."""
    return [member for member in group.facts["members"] if member.get("status") == "ok"]


def varies(group: GroupRecord) -> frozenset[str]:
    """What its members differ in: the record says `init_seed` or `dataset+init_seed`."""
    vary = group.facts.get("vary", "init_seed")
    return frozenset(vary.split("+") if isinstance(vary, str) else map(str, vary))


def group_of(cells: Sequence[CellRecord], groups: Sequence[GroupRecord]) -> GroupRecord | None:
    """The group record over exactly these scores that varies the init seed alone (in the newest wording, where it was written twice)."""
    facts = cells[0].facts
    own = {cell.score_id for cell in cells}
    name = (facts["suite"], facts["entry"], facts["point"])
    for group in groups:
        named = (group.facts["suite"], group.facts["entry"], group.facts["point"]) == name
        if named and varies(group) == {"init_seed"} and {str(m.get("score_id")) for m in members_of(group)} == own:
            return group
    return None


def group_metrics(group: GroupRecord | None) -> dict[str, dict[str, Any]]:
    """Every metric of a row's group: value, `half` (95 % jackknife t-interval over seeds), stderr, n, reason, unit and what it is."""
    if group is None:
        return {}
    info = group.facts.get("metric_info") or {}
    kept = ("value", "stderr", "n", "reason", "unit", "direction")
    seeds = len(members_of(group))
    return {
        name: {
            **{key: metric.get(key) for key in kept},
            "half": None if name in _OWN_INTERVAL else jackknife_half(metric.get("stderr"), seeds),
            **{key: (info.get(name) or {}).get(key) for key in ("family", "description")},
        }
        for name, metric in sorted(group.facts["metrics"].items())
    }


def seed_agreement(group: GroupRecord | None) -> dict[str, Any]:
    """What a row shows of its seeds' agreement; pieces that its record lacks are None. `reason` says why there are no scores.

    Raises:
        SuiteError: Details of a shape that cannot be read.
    """
    if group is None:
        return {"scores": {}, "reason": _SILENT}
    metrics = group_metrics(group)
    found = {score.id: metrics[score.id] for score in SCORES if score.id in metrics}
    if all(metric["value"] is None for metric in found.values()):
        reasons = sorted({str(metric["reason"]) for metric in found.values() if metric["reason"]})
        return {"scores": {}, "reason": "; ".join(reasons) or "not measured"}
    nulls = readable(chance_levels, group, group.path)
    return {
        "scores": {id: beside_chance(metrics, id, nulls.get(id)) for id in found},
        "reason": None,
        "seeds": len(members_of(group)),
        "pairs": max(int(metric["n"]) for metric in found.values()),
        "matching": readable(certificate, group, group.path),
        "curve": readable(threshold_curve, group, group.path),
        "reappearance": readable(reappearance, group, group.path),
        "recapture": readable(recapture, group, group.path),
        "activation": _details(group).get("activation-match"),
        "pair_scores": _details(group).get("stability-pairs") or [],
        "path": group.path,
    }


def _details(group: GroupRecord) -> Mapping[str, Any]:
    return group.facts.get("details") or {}


def chance_levels(group: GroupRecord) -> dict[str, dict[str, Any]]:
    """Chance by score id: value and, where the record has them, 95 % interval over draws and what was drawn."""
    details = _details(group)
    found = {str(id): level for id, level in (details.get("stability-null") or {}).items() if level is not None}
    for id, key in (("matched-correlation", "activation-match"), ("block-agreement", "block-agreement")):
        level = (details.get(key) or {}).get("null")
        if level is not None:
            found.setdefault(id, level)
    for name, metric in group.facts["metrics"].items():
        if name.endswith("-null"):
            found.setdefault(name.removesuffix("-null"), {"value": metric["value"]})
    keys = ("low", "high", "draws", "n", "m", "d")
    return {
        id: {"value": float(level["value"]), **{key: level.get(key) for key in keys}}
        for id, level in found.items()
        if level["value"] is not None
    }


def beside_chance(metrics: Mapping[str, Mapping[str, Any]], id: str, null: Mapping[str, Any] | None) -> dict[str, Any]:
    """A score with the level of chance and the chance-corrected score, each None where the record lacks it."""
    kept = ("value", "half", "n", "reason")
    corrected = metrics.get(f"{id}-corrected")
    return {
        **{key: metrics[id][key] for key in kept},
        "null": null,
        "corrected": None if corrected is None else {key: corrected[key] for key in kept},
    }


def certificate(group: GroupRecord) -> dict[str, Any] | None:
    """Whether the matchings of all pairs were proven optimal, and the largest relative gap (None where a pair has no bound)."""
    pairs = [pair for pair in _details(group).get("stability-pairs") or [] if "proven" in pair]
    if not pairs:
        return None
    gaps = [pair["gap"] for pair in pairs]
    return {
        "proven": sum(bool(pair["proven"]) for pair in pairs),
        "pairs": len(pairs),
        "gap": None if None in gaps else max(map(float, gaps)),
    }


def threshold_curve(group: GroupRecord) -> dict[str, Any] | None:
    """Share of matched pairs over each cosine threshold: `thresholds`, `sfr`, its jackknife `half`, `sfr-alive`, `sfr-null` (None if not recorded)."""
    curve = _details(group).get("sfr-curve")
    if not curve or not curve.get("sfr"):
        return None
    thresholds, size = curve["thresholds"], len(curve["thresholds"])
    stderr = (curve.get("stderr") or {}).get("sfr")
    seeds = len(members_of(group))
    found = {"sfr": curve["sfr"], "sfr-alive": curve.get("sfr-alive"), "sfr-null": curve.get("sfr-null")}
    if any(values is not None and len(values) != size for values in (*found.values(), stderr)):
        raise ValueError("a curve is not as long as its thresholds")
    half = None if stderr is None else [jackknife_half(value, seeds) for value in stderr]
    return {"thresholds": thresholds, **found, "half": half}


def reappearance(group: GroupRecord) -> dict[str, Any] | None:
    """How often a latent is found again in another seed: by density and by share of explained variance, as bins; dead latents apart."""
    found = _details(group).get("reappearance")
    if not found:
        return None
    seeds, kinds = int(found["seeds"]), {"density": "by_density", "variance": "by_variance_share"}
    return {
        "seeds": seeds,
        "share": found["share"],
        "n": found["n"],
        **{kind: _bins(found.get(key), seeds) for kind, key in kinds.items()},
        "reasons": {kind: reason for kind, key in kinds.items() if (reason := (found.get(key) or {}).get("reason"))},
    }


def _bins(by: Mapping[str, Any] | None, seeds: int) -> dict[str, Any] | None:
    """Bins that hold latents, with the 95 % jackknife interval over seeds; apart, those that are dead or have no logarithm."""
    if not by or "edges" not in by:
        return None
    columns = (by["n"], by["mean"], by["stderr"])
    bins = [
        {"low": float(low), "high": float(high), "n": int(n), "mean": float(mean), "half": jackknife_half(error, seeds)}
        for (low, high), n, mean, error in zip(pairwise(log_edges(by["edges"])), *columns, strict=True)
        if n and mean is not None
    ]
    apart = {key: by[key] for key in ("dead", "not_positive") if by.get(key) and by[key]["n"]}
    return {"bins": bins, "apart": {key: {"n": int(item["n"]), "mean": item["mean"]} for key, item in apart.items()}}


def recapture(group: GroupRecord) -> dict[str, Any] | None:
    """Distinct latents that k seeds together find, and the extrapolated total with its 95 % interval."""
    found = _details(group).get("recapture")
    if not found:
        return None
    distinct = [float(value) for value in found["distinct"]]
    k = found.get("k")
    ks = [int(value) for value in k] if isinstance(k, list | tuple) else list(range(1, len(distinct) + 1))
    if len(ks) != len(distinct):
        raise ValueError("as many counts of distinct latents as numbers of seeds are needed")
    estimate = found["estimate"]
    kept = ("low", "high", "method", "assumptions", "n_alive", "singletons", "doubletons", "stderr", "reason")
    return {
        "k": ks,
        "distinct": distinct,
        "estimate": None if estimate is None else float(estimate),
        "coverage": distinct[-1] / float(estimate) if estimate else None,
        **{key: found.get(key) for key in kept},
    }
