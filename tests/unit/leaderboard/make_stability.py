"""Adds to made records what later groups hold.

Scores over chance, certificates, curves, reappearance, recapture, and groups over datasets.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np

from saebench.api import MetricValue
from saebench.metrics.catalogue import INFO
from saebench.score.combine import DatasetValue, combine

Record = dict[str, Any]
THRESHOLDS = [index / 20 for index in range(20)]
# id: (share of the row's level, level of chance)
SCORES = {
    "sfr": (0.92, 0.0),
    "sfr-alive": (1.0, 0.0),
    "strict-shared": (0.35, 0.0),
    "matched-cosine": (1.35, 0.207),
    "mmcs": (1.4, 0.246),
    "matched-correlation": (1.1, 0.018),
    "sfr-activation": (0.7, 0.0),
}


def entry(id: str, value: float | None, stderr: float | None = None, n: int = 3, reason: str | None = None) -> Record:
    """A group metric as a record has it."""
    of = MetricValue.of(INFO[id], value, n, stderr=stderr, reason=reason)
    return {**combine(INFO[id], [DatasetValue(None, None, of)]), "parts": []}


def bins(low: float, step: float, alive: int, level: float, slope: float, rng: np.random.Generator) -> Record:
    """Latents by log10 of density or share of variance, those that matter more found again more often."""
    edges = [round(low + step * index, 2) for index in range(round(-low / step) + 1)]
    sampled = np.clip(rng.normal(-1.9, 0.55, alive), low + 0.01, -0.01)
    counts, _ = np.histogram(sampled, bins=np.array(edges))
    mean: list[float | None] = []
    stderr: list[float | None] = []
    for edge, n in zip(edges, counts, strict=False):
        centre = min(0.97, max(0.02, level + slope * (edge + step / 2 + 1.9)))
        mean.append(None if n == 0 else float(np.clip(centre + rng.normal(0, 0.02), 0, 1)))
        stderr.append(None if n < 2 else 0.25 / math.sqrt(n))
    return {"edges": edges, "n": [int(n) for n in counts], "mean": mean, "stderr": stderr}


def all_of_today(group: Record, level: float, dead: int, rng: np.random.Generator) -> tuple[dict[str, Record], Record]:
    """Metrics and details that a group of seeds of today holds, around the SFR `level`."""
    facts = group["facts"]
    metrics = dict(facts["metrics"])
    d_sae, seeds = facts["d_sae"], sum(member["status"] == "ok" for member in facts["members"])
    labels = [f"s{member['init_seed']}" for member in facts["members"] if member["status"] == "ok"]
    pairs = [(a, b) for index, a in enumerate(labels) for b in labels[index + 1 :]]
    stderr = None if seeds < 3 else 0.012
    for id, (share, null) in SCORES.items():
        value = min(0.98, level * share + null * 0.5)
        spread = None if stderr is None else stderr * (0.4 if null else 1.0)
        metrics[id] = entry(id, value, spread, len(pairs))
        if f"{id}-null" not in INFO:
            continue
        metrics[f"{id}-null"] = entry(f"{id}-null", null)
        metrics[f"{id}-corrected"] = entry(
            f"{id}-corrected", (value - null) / (1 - null), None if spread is None else spread / (1 - null)
        )
    metrics["subspace-agreement"] = entry("subspace-agreement", 0.55 + 0.1 * level, stderr)
    reason = "only for latents in blocks: no member is tagged grouped_latents"
    metrics["block-agreement"] = entry("block-agreement", None, None, 0, reason)
    alive = d_sae - dead
    curve = [1 / (1 + math.exp((threshold - 0.55 - 0.35 * (level - 0.3)) / 0.11)) for threshold in THRESHOLDS]
    null_curve = [float(0.5 * math.erfc((threshold - 0.207) / 0.03)) for threshold in THRESHOLDS]
    counted = [float(alive), alive * (2 - level), alive * (2.9 - 1.6 * level)][:seeds]
    total = counted[-1] * (1.05 + 0.9 * (1 - level))
    metrics["distinct-latents"] = entry("distinct-latents", counted[-1])
    metrics["idealised-dictionary-size"] = entry("idealised-dictionary-size", total, total * 0.04)
    sampled = {"draws": 10, "n": d_sae, "m": d_sae, "d": 128}
    details = {
        "sfr-curve": {
            "thresholds": THRESHOLDS,
            "sfr": curve,
            "sfr-alive": [min(1.0, 1.03 * share) for share in curve],
            "sfr-null": null_curve,
            "stderr": {key: None if stderr is None else [0.01] * len(curve) for key in ("sfr", "sfr-alive")},
        },
        "stability-pairs": [
            {
                "a": a,
                "b": b,
                "d_sae": [d_sae, d_sae],
                "alive": [alive, alive],
                "signed": True,
                "coverage": [level, level],
                "gap": 3.1e-16,
                "proven": True,
                "values": {"sfr": level * 0.92},
            }
            for a, b in pairs
        ],
        "stability-null": {
            id: {"value": null, "low": max(0.0, null - 0.002), "high": null + 0.002, **sampled}
            for id, (_, null) in SCORES.items()
            if id not in ("matched-correlation", "sfr-activation")
        }
        | {"subspace-agreement": {"value": 0.0, "low": -0.02, "high": 0.02, **sampled, "draws": 0}},
        "reappearance": {
            "seeds": seeds,
            "share": [index / (seeds - 1) for index in range(seeds)],
            "n": [alive, alive // 2, alive // 3][:seeds],
            "by_density": {
                **bins(-6, 0.5, 3 * alive, level, 0.22, rng),
                "dead": {"n": 3 * dead, "mean": 0.01 if dead else None},
            },
            "by_variance_share": {
                **bins(-7, 0.5, 3 * alive, level, 0.3, rng),
                "not_positive": {"n": 25, "mean": 0.11},
                "dead": {"n": 3 * dead, "mean": 0.01 if dead else None},
            },
        },
        "recapture": {
            "k": list(range(1, seeds + 1)),
            "distinct": counted,
            "n_alive": [alive] * seeds,
            "singletons": round(counted[-1] * 0.6),
            "doubletons": round(counted[-1] * 0.2),
            "estimate": total,
            "low": total * 0.93,
            "high": total * 1.11,
            "method": "chao2" if seeds > 2 else "chapman",
            "assumptions": (
                "Every seed draws its latents independently from one closed dictionary; a cosine over 0.7 is "
                "identity. Some latents are harder to find than others. It is no bound."
            ),
        },
        "activation-match": {
            "tokens": 65_536,
            "floor": 0.05,
            "bound": 0.002,
            "null": {"value": 0.018, "low": 0.017, "high": 0.019, "draws": 3},
        },
    }
    return metrics, details


def across_datasets(
    levels: dict[str, float], difference: float, stderr: float | None
) -> tuple[dict[str, Record], Record]:
    """Metrics and details of a group over datasets and seeds; `levels` is SFR alive by kind of pair."""
    metrics: dict[str, Record] = {}
    details: Record = {}
    counts = {"seeds": 6, "datasets": 3, "both": 6}
    for kind, level in levels.items():
        details[kind] = {}
        for id in ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs"):
            share, null = SCORES[id]
            value = level * share + null * 0.5
            for name, shown in ((id, value), (f"{id}-null", null), (f"{id}-corrected", (value - null) / (1 - null))):
                details[kind][name] = {"value": shown, "stderr": stderr, "n": counts[kind]}
            if id != "strict-shared":
                metrics[f"{id}-across-{kind}"] = entry(f"{id}-across-{kind}", value, stderr, counts[kind])
    metrics["dataset-over-seed"] = entry("dataset-over-seed", difference, stderr)
    pairs = [
        {"a": "docs s0", "b": "own s0", "kind": "datasets", "values": {"sfr-alive": levels["datasets"]}},
        {"a": "docs s0", "b": "docs s1", "kind": "seeds", "values": {"sfr-alive": levels["seeds"]}},
    ]
    return metrics, {"agreement": details, "agreement-pairs": pairs}


def add_stability(generator: ModuleType, cells: dict[str, Record], groups: dict[str, Record]) -> None:
    """Brings made groups up to date, and adds two groups over datasets.

    Topk (docs) with faithful (own) at each point.
    """
    rng = np.random.default_rng(11)
    by_score = {record["score_id"]: record for record in cells.values()}
    for path in sorted(groups):
        facts = groups[path]["facts"]
        members = [by_score[member["score_id"]] for member in facts["members"]]
        level = 0.85 if facts["entry"] == "truth" else facts["metrics"]["sfr-alive"]["value"] - 0.12
        made = all_of_today(groups[path], level, 110 if facts["entry"] == "expander" else 6, rng)
        groups[path] = generator.group_of(members, *made, vary=("init_seed",), spec="stability")
    last = groups["groups/quickstart/jumprelu/target-l0-16.json"]["facts"]["details"]["stability-pairs"][1]
    last.update(gap=0.0007, proven=False)
    cases = {"k8": ((0.43, 0.31, 0.27), 0.12, 0.011), "k16": ((0.41, 0.4, 0.36), 0.01, 0.009)}
    for point, (levels, difference, stderr) in cases.items():
        members = [
            record
            for entry in ("topk", "faithful")
            for path, record in sorted(cells.items())
            if f"/{entry}/{point}-s" in path
        ]
        made = across_datasets(dict(zip(("seeds", "datasets", "both"), levels, strict=True)), difference, stderr)
        found = generator.group_of(members, *made, vary=("dataset", "init_seed"), spec="agreement")
        groups[f"groups/quickstart/across-dataset/topk-{point}-{found['group_id'][:8]}.json"] = found
