"""Plausible records, the same on every machine.

One suite on a model with five contenders and controls, and a synthetic track.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from saebench.api import MetricInfo, MetricValue
from saebench.artifacts import write_record
from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, ModelUse, TrainSettings, Tune
from saebench.cells.plan import Group
from saebench.execute import groups as execute_groups
from saebench.execute import records as execute_records
from saebench.metrics.catalogue import INFO
from saebench.score import ScoreOutcome
from saebench.score.combine import DatasetValue, combine, info_json
from saebench.score.group import GroupOutcome
from saebench.train import TrainOutcome
from saebench_plugins.faithful.ffr_spec import FFR

MODEL = ModelUse("docs-lm", None, "a3" * 32, "model.layers.2", "layers.2", 128)
DESCRIBED = {**INFO, **{info.id: info for info in FFR}}
TRAIN = TrainSettings(1024, 0.001, (0.9, 0.999), 1e-8, None, 0.05, 0.2, "rms")
CELLS: dict[str, Cell] = {}
"""The cells of all records made so far, by score id: a group record is made of cells."""
VOCABULARY = [
    "the",
    "socket",
    "is",
    "opened",
    "before",
    "the",
    "server",
    "binds",
    "to",
    "an",
    "address",
    "and",
    "listens",
    "for",
    "new",
    "connections",
    "from",
    "clients",
]
# name: (architecture, training dataset, quality offset, dead fraction, L0 factor)
ENTRIES = {
    "topk": ("topk", "docs", 0.0, 0.05, 1.0),
    "jumprelu": ("jumprelu", "docs", -0.004, 0.02, 1.06),
    "expander": ("expander", "docs", -0.055, 0.22, 1.0),
    "faithful": ("topk", "own", -0.0004, 0.06, 1.0),
    "ssae": ("ssae", "near", -0.012, 0.04, 1.0),
}
# Seconds a token, of data making and of the parent; None for records of before these were kept.
SECONDS = {
    "topk": (2e-5, 0.0, 0.0),
    "jumprelu": (4e-5, 0.0, 0.0),
    "expander": (1e-5, 0.0, 0.0),
    "faithful": (2e-5, 5.0, 0.0),
    "ssae": None,
}


def hexes(*parts: object, length: int = 64) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:length]


def metric(
    info: MetricInfo,
    value: float | None,
    *,
    reason: str = "no token fired",
    datasets: Iterable[str | None] = (None,),
    n: int = 65_536,
) -> dict[str, Any]:
    """A metric's entry in a record, 3 % lower on each further dataset."""
    told = info.family == "reconstruction" and value is not None
    found = []
    for index, dataset in enumerate(datasets):
        moved = None if value is None else round(value * (1 - 0.03 * index), 12)
        of = MetricValue.of(
            info, moved, n, stderr=0.0012 if told else None, reason=None if value is not None else reason
        )
        found.append(DatasetValue(dataset, None if dataset is None else 0, of))
    return combine(info, found)


def contexts(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for latent in (3, 41, 207, 300):
        items = []
        for _ in range(3):
            tokens = [f" {VOCABULARY[index]}" for index in rng.integers(0, len(VOCABULARY), 40)]
            peak = int(rng.integers(5, 39))
            activations = [round(float(max(0.0, 4 - abs(i - peak) * 1.7) * rng.uniform(0.6, 1)), 4) for i in range(40)]
            items.append(
                {
                    "text_tokens": tokens,
                    "activations": activations,
                    "peak": max(activations),
                    "at": activations.index(max(activations)),
                }
            )
        found.append({"latent": latent, "density": 0.013, "contexts": items})
    return found


def histogram(dead: float, l0: float, seed: int, d_sae: int = 512) -> dict[str, Any]:
    edges = [round(-6 + index / 10, 1) for index in range(61)]
    rng = np.random.default_rng(seed)
    alive = d_sae - round(dead * d_sae)
    densities = np.clip(rng.normal(math.log10(l0 / d_sae) - 0.4, 0.55, alive), -5.95, -0.05)
    counts, _ = np.histogram(densities, bins=np.array(edges))
    return {"edges_log10": edges, "counts": [int(count) for count in counts], "zero": d_sae - alive}


def cell_record(
    entry: str,
    point: str,
    seed: int,
    values: Mapping[str, float | None],
    *,
    suite: str = "quickstart",
    architecture: str = "topk",
    dataset: str = "docs",
    kind: str = "text",
    control: bool = False,
    model: ModelUse | None = MODEL,
    config: dict[str, Any] | None = None,
    expected_l0: float | None = None,
    status: str = "ok",
    error: dict[str, Any] | None = None,
    datasets: tuple[str, ...] = ("docs", "near"),
    tokens: int = 150_000,
    data_tokens: int = 0,
    parent_tokens: int = 0,
    details: dict[str, Any] | None = None,
    version: str = "1",
    finished: str = "2026-11-20T08:00:00Z",
    supersedes: str | None = None,
    trajectory: list[dict[str, Any]] | None = None,
    seconds: tuple[float, float, float] | None = None,
    budget: Mapping[str, Any] | None = None,
    tune: Tune | None = None,
    validation: dict[str, Any] | None = None,
    part: str | None = None,
    described: Mapping[str, MetricInfo] = DESCRIBED,
) -> dict[str, Any]:
    """The record that a run would write of such a cell; without `seconds` as older versions wrote it."""
    config = {"d_sae": 512} if config is None else config
    cell_id = hexes("cell", suite, entry, point, seed, config, dataset)
    a_token, data_s, parent_s = seconds or (0.0, 0.0, 0.0)
    cell = Cell(
        cell_id=cell_id,
        score_id=hexes("score", cell_id, version, datasets),
        suite=suite,
        entry=entry,
        point=point,
        sweep={"k": expected_l0} if expected_l0 else {},
        where="",
        part=ArchitectureUse(architecture, "1", config),
        base=None,
        d_in=128,
        d_out=128,
        d_sae=config["d_sae"],
        tags=(),
        model=model,
        dataset=DatasetUse(dataset, dataset, "1", kind, {}, hexes("recipe", dataset)),
        evaluation=EvaluationSettings(datasets, 65_536, 16_384, 65_536, (0,)),
        evaluation_datasets=(),
        init_seed=seed,
        data_seed=0,
        parent="ab" * 32 if parent_tokens else None,
        train=TRAIN,
        tokens=tokens,
        control=control,
        expected_l0=expected_l0,
        cohort="",
        group="",
        metrics={"reconstruction": version, "density": "1", "ffr": "1"},
        plugins={f"architecture/{architecture}": {"distribution": "saebench-harness", "version": "0.1.0"}},
        tune=tune,
    )
    CELLS[cell.score_id] = cell
    numerics = {"backend": "bf16-screen", "parameters": "float32", "products": ["screen"], "deterministic": True}
    fallback = {"fallback_rows": {"mean": 0.001 * (1 + seed), "min": 0.0, "max": 0.01, "last": 0.0, "n": 146}}
    trained = TrainOutcome(
        cell_id,
        status,
        error,
        steps=146,
        tokens=tokens,
        flops=round(tokens * 5e5),
        forward_flops=round(tokens * 5e5),
        epochs=1.0,
        data={"tokens": data_tokens, "flops": round(data_tokens * 5e5)},
        ancestors={"tokens": parent_tokens, "flops": round(parent_tokens * 5e5)},
        trajectory=trajectory or [],
        dead_fraction=0.02,
        input_scale=1.0,
        facts=fallback if seconds else {},
        numerics=numerics if seconds else None,
        device_s=tokens * a_token,
        data_s=data_s,
        waited_s=2.0,
        ancestors_s=parent_s,
        trajectory_s=[step["tokens"] * a_token for step in trajectory or []],
    )
    source: Any = SimpleNamespace(
        content=hexes("content", dataset),
        manifest={},
        n_tokens=150_000,
        rounding=None,
        token_policy={"bos": True} if model else None,
    )
    used = [
        {
            "name": name,
            "recipe": hexes("recipe", name),
            "content": hexes("content", name),
            "n_tokens": 65_536,
            "n_loss_tokens": 16_384,
            "n_density_tokens": 65_536,
        }
        for name in datasets
    ]
    scored = ScoreOutcome(
        metrics={name: metric(described[name], values[name], datasets=datasets) for name in sorted(values)},
        measured_metrics={"train-device-s": metric(described["train-device-s"], 3.25 + seed / 100)},
        metric_info=info_json(described[name] for name in (*sorted(values), "train-device-s")),
        metric_versions=dict(cell.metrics),
        details=details or {},
        arrays={},
        sae_facts={},
        spent={"tokens": 65_536, "flops": round(65_536 * 5e5)},
        seconds=1.5,
        validation=validation,
        evaluation={
            "datasets": used,
            "seeds": [0],
            "tokens": 65_536,
            "loss_tokens": 16_384,
            "density_tokens": 65_536,
            "thresholds": {"ffr": 0.10},
        }
        | ({"part": part} if part else {}),
    )
    outcome = execute_records.CellOutcome(
        status, error, execute_records.Trained(trained, source, data_s), scored if status == "ok" else None
    )
    plan: Any = SimpleNamespace(budget=budget or {"primary": "tokens", "counts": "train"}, suite_digest=hexes(suite))
    environment = {
        "host": {"cpu": "test cpu", "cores": 2, "memory_bytes": 8_000_000_000, "platform": "linux", "device": "cpu"},
        "versions": {"saebench": "0.1.0", "python": "3.11.9", "torch": "2.11.0"},
        "threads": 2,
        "started": "2026-11-20T07:59:00Z",
        "finished": finished,
    }
    record = execute_records.cell_record(cell, plan, outcome, supersedes=supersedes, environment=environment)
    if seconds is None:
        del record["measured"]["spent_s"], record["measured"]["trajectory_s"]
    return record


def group_of(
    members: list[dict[str, Any]],
    metrics: Mapping[str, dict[str, Any]],
    details: dict[str, Any],
    *,
    vary: tuple[str, ...],
    spec: str,
) -> dict[str, Any]:
    """The record that a run would write of a group of these cells."""
    cells = [CELLS[record["score_id"]] for record in members]
    statuses = {cell.cell_id: record["facts"]["status"] for cell, record in zip(cells, members, strict=True)}
    entry = " + ".join(dict.fromkeys(cell.entry for cell in cells))
    group = Group("", cells[0].suite, entry, cells[0].point, "", tuple(statuses), {spec: "1"}, vary)
    described = info_json(DESCRIBED[id] for id in metrics)
    outcome = GroupOutcome("ok", dict(metrics), {}, described, {spec: "1"}, details, {}, {})
    versions = {"versions": {"saebench": "0.1.0"}}
    return execute_groups.group_record(group, cells, statuses, outcome, environment=versions, plugins={})


def group_record(members: list[dict[str, Any]], values: Mapping[str, float | None]) -> dict[str, Any]:
    """A group of init seeds."""
    reason = "under two members are ok"
    metrics = {id: {**metric(DESCRIBED[id], value, reason=reason, n=3), "parts": []} for id, value in values.items()}
    return group_of(members, metrics, {}, vary=("init_seed",), spec="stability")


def model_values(
    level: float, offset: float, dead: float, factor: float, noise: np.random.Generator
) -> dict[str, float | None]:
    explained = 0.80 + 0.045 * math.log2(level) / 2 + offset + float(noise.normal(0, 0.0012))
    recovered = 0.86 + 0.03 * math.log2(level) / 2 + 0.8 * offset + float(noise.normal(0, 0.0015))
    dense = 0.012 + max(0.0, float(noise.normal(0, 0.002)))
    return {
        "fvu": 1 - explained,
        "variance-explained": explained,
        "ce-recovered-zero": recovered + 0.05,
        "ce-recovered-mean": recovered,
        "kl": 0.9 * (1 - recovered),
        "l0": level * factor + (float(noise.normal(0, 0.08)) if factor != 1 else 0.0),
        "dead-fraction": dead + abs(float(noise.normal(0, 0.01))),
        "dense-fraction-10pct": dense,
        "ffr-random": dense * 1.9,
        "ffr-text": dense,
        "ffr-self": dense * 1.1,
    }


def make_records() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Records and groups by path. Everything a page can show occurs.

    Ties, nulls with reasons, failures, controls, a synthetic track.
    """
    cells: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {}
    noise = np.random.default_rng(7)

    def put(record: dict[str, Any]) -> dict[str, Any]:
        facts = record["facts"]
        cells[
            f"records/{facts['suite']}/{facts['entry']}/{facts['point']}-s{facts['init_seed']}-{record['score_id'][:8]}.json"
        ] = record
        return record

    for entry, (architecture, dataset, offset, dead, factor) in ENTRIES.items():
        for level in (8, 16):
            members = []
            for seed in (0, 1, 2):
                values = model_values(level, offset, dead, factor if level == 8 else 2 - factor, noise)
                steps = [
                    {
                        "tokens": int(150_000 * 2 ** (i - 11)),
                        "flops": round(150_000 * 2 ** (i - 11) * (2e4 if entry == "expander" else 1e5)),
                        "fvu": (1 - values["variance-explained"]) * (1 + 0.35 * (11 - i)),
                        "l0": level * 1.0,
                    }
                    for i in range(12)
                ]  # type: ignore[operator]
                status, error = "ok", None
                if (entry, level, seed) == ("ssae", 8, 2):
                    status, error = (
                        "diverged",
                        {
                            "type": "Diverged",
                            "message": (
                                "the loss was not finite at step 81 (token 82,944); lower `train.lr` <or> raise "
                                "`warmup`"
                            ),
                        },
                    )
                if (entry, level, seed) == ("expander", 16, 0):
                    values["kl"] = None
                label = {"jumprelu": f"target-l0-{level}"}.get(entry, f"k{level}")
                own = (
                    {"data_tokens": 150_000}
                    if dataset == "own"
                    else {"parent_tokens": 150_000}
                    if entry == "ssae"
                    else {}
                )
                details = {
                    "density-histogram": histogram(dead, level, seed + level),
                    "strongest-contexts": contexts(seed),
                }
                members.append(
                    put(
                        cell_record(
                            entry,
                            label,
                            seed,
                            values,
                            architecture=architecture,
                            dataset=dataset,
                            config={"d_sae": 512, "k": level},
                            expected_l0=float(level),
                            status=status,
                            error=error,
                            details=details,
                            trajectory=steps,
                            seconds=SECONDS[entry],
                            **own,
                        )
                    )
                )
            cosine = 0.62 - dead + 0.02 * math.log2(level)
            label = members[0]["facts"]["point"]
            groups[f"groups/quickstart/{entry}/{label}.json"] = group_record(
                members,
                {
                    "sfr": cosine - 0.2,
                    "sfr-alive": cosine - 0.1,
                    "matched-cosine": cosine,
                    "matched-cosine-null": 0.291,
                },
            )
    controls = {
        "control-random": (0.21, 0.2),
        "control-permuted": (-0.35, 0.1),
        "control-pca": (0.72, 0.6),
        "control-identity": (1.0, 1.0),
    }
    for entry, (explained, recovered) in controls.items():
        values = {
            **model_values(8, 0.0, 0.0, 1.0, noise),
            "variance-explained": explained,
            "fvu": 1 - explained,
            "ce-recovered-mean": recovered,
            "ce-recovered-zero": recovered,
            "kl": 1 - recovered,
        }
        values["l0"] = 128.0 if entry == "control-identity" else 8.0
        put(
            cell_record(
                entry,
                "default",
                0,
                values,
                architecture=entry,
                control=True,
                config={"d_sae": 512, "k": 8},
                expected_l0=8.0,
                tokens=0,
            )
        )
    truth = []
    for seed in (0, 1, 2):
        explained = 0.95 + float(noise.normal(0, 0.002))
        values = {
            "fvu": 1 - explained,
            "variance-explained": explained,
            "l0": 8.0,
            "dead-fraction": 0.03,
            "dense-fraction-10pct": 0.0,
            "truth-mcc": 0.83 + 0.005 * seed,
            "truth-f1": 0.74,
            "truth-uniqueness": 0.9,
        }
        truth.append(
            put(
                cell_record(
                    "truth",
                    "default",
                    seed,
                    values,
                    dataset="truth",
                    kind="synthetic",
                    model=None,
                    config={"d_sae": 256, "k": 8},
                    expected_l0=8.0,
                    datasets=("truth",),
                    details={"density-histogram": histogram(0.03, 8, seed, 256)},
                )
            )
        )
    groups["groups/quickstart/truth/default.json"] = group_record(
        truth, {"sfr": 0.7, "sfr-alive": 0.72, "matched-cosine": 0.81, "matched-cosine-null": 0.3}
    )
    return cells, groups


def write_folder(
    folder: Path, cells: dict[str, dict[str, Any]], groups: dict[str, dict[str, Any]] | None = None
) -> Path:
    for path, record in {**cells, **(groups or {})}.items():
        write_record(folder / path, record)
    return folder
