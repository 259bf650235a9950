"""Plausible records, the same on every machine: one suite on a model with five contenders and controls, and a synthetic track."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from saebench.artifacts import write_record

MODEL = {
    "id": "docs-lm",
    "revision": None,
    "digest": "a3" * 32,
    "hookpoint": "model.layers.2",
    "hookpoint_name": "layers.2",
    "context": 128,
}
DIRECTIONS = {
    "fvu": "lower", "variance-explained": "higher", "ce-recovered-zero": "higher", "ce-recovered-mean": "higher", "kl": "lower", "l0": "neutral",
    "dead-fraction": "lower", "dense-fraction-10pct": "lower", "ffr-random": "lower", "ffr-text": "lower", "ffr-self": "lower",
    "truth-mcc": "higher", "truth-f1": "higher", "truth-uniqueness": "higher",
    "sfr": "higher", "sfr-alive": "higher", "matched-cosine": "higher", "matched-cosine-null": "neutral", "train-device-s": "lower",
}  # fmt: skip
UNITS = {
    "kl": "nats",
    "l0": "latents",
    "train-device-s": "seconds",
    "matched-cosine": "ratio",
    "matched-cosine-null": "ratio",
}
FAMILIES = {"l0": "sparsity", "dead-fraction": "density", "dense-fraction-10pct": "density", "train-device-s": "cost"}
WORDS = [
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


def family(name: str) -> str:
    heads = {"ffr": "faithfulness", "sfr": "stability", "mat": "stability", "tru": "ground truth"}
    return FAMILIES.get(name) or heads.get(name[:3], "reconstruction")


def metric(
    name: str, value: float | None, *, reason: str | None = None, datasets: Iterable[str] = ("docs",), n: int = 65_536
) -> dict[str, Any]:
    stderr = None if value is None or name.startswith(("dead", "dense", "ffr", "truth", "sfr", "mat")) else 0.0012
    parts = []
    for index, dataset in enumerate(datasets):
        moved = None if value is None else round(value * (1 - 0.03 * index), 12)
        parts.append(
            {"dataset": dataset, "seed": 0, "slice": None, "value": moved, "stderr": stderr, "n": n, "reason": reason}
        )
    found = {
        "value": value,
        "unit": UNITS.get(name, "fraction"),
        "direction": DIRECTIONS[name],
        "n": n,
        "stderr": stderr,
        "reason": reason,
    }
    return {**found, "on": next(iter(datasets), None), "parts": parts}


def info(names: Iterable[str]) -> dict[str, Any]:
    return {
        name: {
            "family": family(name),
            "description": f"what {name} is",
            "unit": UNITS.get(name, "fraction"),
            "direction": DIRECTIONS[name],
            "measured": name == "train-device-s",
        }
        for name in names
    }


def contexts(seed: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    found = []
    for latent in (3, 41, 207, 300):
        items = []
        for _ in range(3):
            tokens = [f" {WORDS[index]}" for index in rng.integers(0, len(WORDS), 40)]
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
    entry: str, point: str, seed: int, values: dict[str, float | None], *, suite: str = "quickstart", architecture: str = "topk", dataset: str = "docs", kind: str = "text",
    control: bool = False, model: dict[str, Any] | None = MODEL, config: dict[str, Any] | None = None, expected_l0: float | None = None, status: str = "ok",
    error: dict[str, Any] | None = None, datasets: tuple[str, ...] = ("docs", "near"), tokens: int = 150_000, data_tokens: int = 0, parent_tokens: int = 0,
    details: dict[str, Any] | None = None, version: str = "1", finished: str = "2026-11-20T08:00:00Z", supersedes: str | None = None, trajectory: list[dict[str, Any]] | None = None,
    seconds: tuple[float, float, float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    config = {"d_sae": 512} if config is None else config
    cell_id = hexes("cell", suite, entry, point, seed, config, dataset)
    recipe = hexes("recipe", dataset)
    names = sorted(values)
    facts = {
        "status": status, "error": error, "suite": suite, "suite_digest": hexes(suite), "entry": entry, "point": point, "sweep": {"k": expected_l0} if expected_l0 else {},
        "architecture": architecture, "architecture_version": "1", "config": config, "base": None, "tags": [], "control": control, "parent": None, "init_seed": seed, "data_seed": 0,
        "d_in": 128, "d_out": 128, "d_sae": config["d_sae"], "expected_l0": expected_l0, "model": model,
        "dataset": {"name": dataset, "plugin": dataset, "version": "1", "kind": kind, "options": {}, "recipe": recipe, "content": hexes("content", dataset), "manifest": {}, "epochs": 1.0, "n_tokens": 150_000},
        "token_policy": {"bos": True} if model else None, "train": None if control else {"batch": 1024, "lr": 0.001}, "input_scale": 1.0,
        "budget": {"primary": "tokens", "tokens": tokens, "counts": "train"},
        "spent": {kind_: {"tokens": number, "flops": number * 5e5} for kind_, number in (("train", tokens), ("data", data_tokens), ("parent", parent_tokens), ("forward", tokens), ("scoring", 65_536))},
        "training": None if control else {"steps": 146, "trajectory": trajectory or [], "dead_fraction": 0.02, "facts": {}},
        "evaluation": {
            "datasets": [{"name": name, "recipe": hexes("recipe", name), "content": hexes("content", name), "n_tokens": 65_536, "n_loss_tokens": 16_384, "n_density_tokens": 65_536} for name in datasets],
            "seeds": [0], "tokens": 65_536, "loss_tokens": 16_384, "density_tokens": 65_536, "thresholds": {"ffr": 0.10},
        },
        "metrics": {name: metric(name, values[name], reason=None if values[name] is not None else "no token fired", datasets=datasets) for name in names},
        "details": details or {}, "metric_versions": {"reconstruction": version, "density": "1", "ffr": "1"}, "metric_info": info([*names, "train-device-s"]), "sae_facts": {}, "deterministic": True,
    }  # fmt: skip
    if status != "ok":
        facts["metrics"], facts["evaluation"] = {}, None
    score_id = hexes("score", cell_id, version, datasets)
    measured = {
        "metrics": {"train-device-s": metric("train-device-s", 3.25 + seed / 100, datasets=())} if status == "ok" else {},
        "times": {"train_s": 3.25, "score_s": 1.5},
        "host": {"cpu": "test cpu", "cores": 2, "memory_bytes": 8_000_000_000, "platform": "linux", "device": "cpu"},
        "versions": {"saebench": "0.1.0", "python": "3.11.9", "torch": "2.11.0"},
        "plugins": {f"architecture/{architecture}": {"distribution": "saebench-harness", "version": "0.1.0"}},
        "threads": 2, "observer_errors": [], "started": "2026-11-20T07:59:00Z", "finished": finished,
    }  # fmt: skip
    if seconds is not None:
        a_token, data_s, parent_s = seconds
        measured["trajectory_s"] = [step["tokens"] * a_token for step in trajectory or []]
        measured["spent_s"] = {
            "train": tokens * a_token,
            "data": data_s,
            "parent": parent_s,
            "forward": 2.0,
            "scoring": 1.5,
        }
        facts["training"]["numerics"] = {
            "backend": "bf16-screen",
            "parameters": "float32",
            "products": ["screen"],
            "deterministic": True,
        }
        facts["training"]["facts"] = {
            "fallback_rows": {"mean": 0.001 * (1 + seed), "min": 0.0, "max": 0.01, "last": 0.0, "n": 146}
        }
    return {
        "kind": "cell",
        "cell_id": cell_id,
        "score_id": score_id,
        "supersedes": supersedes,
        "arrays_sha256": None,
        "facts": facts,
        "measured": measured,
    }


def group_record(members: list[dict[str, Any]], values: dict[str, float | None]) -> dict[str, Any]:
    facts = members[0]["facts"]
    listed = [
        {
            "cell_id": item["cell_id"],
            "score_id": item["score_id"],
            "init_seed": item["facts"]["init_seed"],
            "status": item["facts"]["status"],
        }
        for item in members
    ]
    metrics = {
        name: {
            **metric(name, value, reason=None if value is not None else "under two members are ok", datasets=()),
            "n": 3,
        }
        for name, value in values.items()
    }
    kept = {key: facts[key] for key in ("suite", "entry", "point", "architecture", "control", "model", "d_sae")}
    body = {
        **kept,
        "vary": "init_seed",
        "dataset": facts["dataset"]["name"],
        "members": listed,
        "status": "ok",
        "metrics": metrics,
        "metric_info": info(values),
        "metric_versions": {"stability": "1"},
        "details": {},
    }
    identity = hexes("group", facts["suite"], facts["entry"], facts["point"])
    return {
        "kind": "group",
        "group_id": identity,
        "arrays_sha256": None,
        "facts": body,
        "measured": {"versions": {"saebench": "0.1.0"}, "times": {}},
    }


def model_values(
    level: float, offset: float, dead: float, factor: float, noise: np.random.Generator
) -> dict[str, float | None]:
    explained = 0.80 + 0.045 * math.log2(level) / 2 + offset + float(noise.normal(0, 0.0012))
    recovered = 0.86 + 0.03 * math.log2(level) / 2 + 0.8 * offset + float(noise.normal(0, 0.0015))
    dense = 0.012 + max(0.0, float(noise.normal(0, 0.002)))
    return {
        "fvu": 1 - explained, "variance-explained": explained, "ce-recovered-zero": recovered + 0.05, "ce-recovered-mean": recovered, "kl": 0.9 * (1 - recovered),
        "l0": level * factor + (float(noise.normal(0, 0.08)) if factor != 1 else 0.0), "dead-fraction": dead + abs(float(noise.normal(0, 0.01))), "dense-fraction-10pct": dense,
        "ffr-random": dense * 1.9, "ffr-text": dense, "ffr-self": dense * 1.1,
    }  # fmt: skip


def make_records() -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Records and groups by path. Everything a page can show occurs: ties, nulls with reasons, failures, controls, a synthetic track."""
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
                            "message": "the loss was not finite at step 81 (token 82,944); lower `train.lr` <or> raise `warmup`",
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
                    "ffr-sweep": {
                        "random-tokens": {"0.01": 0.3, "0.1": values["ffr-random"]},
                        "eval": {"0.01": 0.2, "0.1": values["ffr-text"]},
                    },
                    "strongest-contexts": contexts(seed),
                }
                members.append(put(cell_record(
                    entry, label, seed, values, architecture=architecture, dataset=dataset, config={"d_sae": 512, "k": level}, expected_l0=float(level), status=status, error=error,
                    details=details, trajectory=steps, seconds=SECONDS[entry], **own,
                )))  # fmt: skip
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
