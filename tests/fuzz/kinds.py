"""What is fuzzed: each kind makes one input in a folder from a random generator, and gives the call that reads it."""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from mutate import as_json, how_often, mutate_bytes, mutate_tree

from saebench.api.specs import resolve
from saebench.artifacts.proof import sealed
from saebench.base.canonical import canonical_json

Case = Callable[[], object]

# ---- suites ----------------------------------------------------------------------------------------------------------

_SMALL = """
schema: 1
name: small
datasets:
  truth: {plugin: synthetic, d_in: 16, n_features: 32}
entries:
  - {name: a, architecture: topk, dataset: truth, config: {d_sae: 32}, sweep: {k: [2, 4]},
     train: {batch: 64, lr: 0.001, betas: [0.9, 0.99], eps: 1.0e-8, clip: 1.0, warmup: 0.1, decay: 0.2}}
  - {name: b, architecture: topk, dataset: truth, init_from: {entry: a, at: {k: 2}}}
  - {name: c, architecture: jumprelu, dataset: truth, config: {d_sae: 32, target_l0: 4},
     tune: {metric: fvu, lr: [0.001, 0.01]}}
  - {name: d, architecture: expander, dataset: truth, config: {d_sae: 32, degree: 4, k: 4}}
  - {name: e, architecture: relu-l1, dataset: truth, config: {d_sae: 32}, sweep: {l1_coefficient: [0.1, 1]}}
train: {batch: 64}
evaluation: {tokens: 4096, loss_tokens: 64, density_tokens: 128}
activations: {source: live, dtype: float16, shuffle: 1024, prefetch: 1, quota_gb: 1.5}
budget: {primary: tokens, tokens: 100_000, memory_gb: 2, pool: true}
seeds: {init: [0, 1], data: [0], evaluation: [0]}
controls: true
metrics: core
"""


@functools.cache
def _planner() -> tuple[Any, Any]:
    from saebench.host import load_catalog
    from saebench.lm.book import ModelBook

    catalog = load_catalog(())
    return catalog, ModelBook(catalog)


@functools.cache
def _suites() -> list[Any]:
    from saebench.config import builtin_suites

    return [yaml.safe_load(_SMALL), yaml.safe_load(builtin_suites()["quickstart"].read_text("utf-8"))]


def _plan(path: Path) -> None:
    from saebench.artifacts import canonical_json
    from saebench.config import load_suite
    from saebench.plan import make_plan
    from saebench.plan.print import print_plan

    catalog, facts = _planner()
    plan = make_plan(load_suite(path), catalog, facts=facts)
    canonical_json(plan.to_json()).encode("utf-8")
    print_plan(plan)


def suites(rng: random.Random, folder: Path) -> Case:
    """A suite file, read and planned."""
    path = folder / "suite.yaml"
    trees = _suites()
    tree = trees[0] if rng.random() < 0.8 else trees[1]
    if rng.random() < 0.7:
        changed = mutate_tree(rng, tree, trees, how_often(rng))
        data = as_json(changed)
        if rng.random() >= 0.5:
            with contextlib.suppress(RecursionError):  # yaml's, not ours
                data = yaml.safe_dump(changed, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        texts = [yaml.safe_dump(one, sort_keys=False).encode() for one in trees]
        data = mutate_bytes(rng, texts[0] if tree is trees[0] else texts[1], texts, how_often(rng))
    path.write_bytes(data)
    return lambda: _plan(path)


# ---- records, groups, plan.json --------------------------------------------------------------------------------------

_SEALS = {"records": "record_sha256", "groups": "record_sha256", "plan.json": "plan_sha256"}
_BOARD = Path(__file__).parents[2] / "leaderboard"
_KEPT = (
    "topk/k8-s0",
    "topk/k8-s1",
    "child/k8-s",
    "topk-continued/k8-s",
    "truth/default-s0",
    "control-pca/d_sae64",
    "groups/quickstart/topk/k8",
    "across-dataset/topk-k8",
    "plan.json",
)

_FEW = ("topk/k8-s0", "child/k8-s0", "topk-continued/k8-s0", "plan.json")


def _thinned(tree: Any) -> Any:
    """The same shape with shorter lists: a mutation then hits what is read, not the 300th token."""
    if isinstance(tree, dict):
        return {key: _thinned(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_thinned(value) for value in tree[: 8 if len(tree) > 20 else None]]
    return tree


def _family(name: str, record: Any) -> dict[str, Any]:
    """A child of a cell and its parent trained on: what they hold and the others do not."""
    spent = record["facts"]["spent"]
    spent["all"] = {unit: 3 * spent["train"][unit] for unit in ("tokens", "flops")}
    found = {}
    for entry, more in (("child", {}), ("topk-continued", {"control": True, "continued": True})):
        one = json.loads(json.dumps(record))
        one["cell_id"], one["score_id"] = (f"{entry}-{record[key]}"[:64] for key in ("cell_id", "score_id"))
        one["facts"] |= {"entry": entry, "parent": record["cell_id"], **more}
        found[name.replace("/topk/", f"/{entry}/")] = one
    return found


@functools.cache
def _records() -> dict[str, Any]:
    found = {}
    for path in sorted([*_BOARD.glob("records/**/*.json"), *_BOARD.glob("groups/**/*.json")]):
        name = path.relative_to(_BOARD).as_posix()
        if any(part in name for part in _KEPT):
            record = json.loads(path.read_text("utf-8"))
            details = record["facts"].get("details") or {}
            for latent in details.get("strongest-contexts") or []:
                latent["contexts"] = _thinned(latent["contexts"][:1])
            if name.startswith("records"):
                record["facts"]["dataset"]["manifest"] = {}
            found[name] = record
            if "topk/k8-s" in name and name.startswith("records"):
                found |= _family(name, record)
    cells = [
        {key: record["facts"][key] for key in ("suite", "entry", "point", "init_seed")}
        | {key: record[key] for key in ("cell_id", "score_id")}
        for name, record in found.items()
        if name.startswith("records")
    ]
    found["plan.json"] = {"schema_version": 1, "suite": "quickstart", "suite_digest": "0", "cells": cells}
    return found


@functools.cache
def _sound() -> dict[str, bytes]:
    """The files that nobody mutated, with their digests."""
    return {name: as_json(sealed(record, _SEALS[name.partition("/")[0]])) for name, record in _records().items()}


def _page(folder: Path) -> None:
    from saebench.leaderboard.pages.html import page_html
    from saebench.leaderboard.tables.board import board_of

    page_html(board_of([folder])).encode("utf-8")


def _tables(folder: Path) -> None:
    from saebench.leaderboard.pages.markdown import readme_markdown
    from saebench.leaderboard.tables.board import board_of

    board = board_of([folder])
    canonical_json(board.to_json()).encode("utf-8")
    readme_markdown(board, has_chart=True).encode("utf-8")


def _other_readers(rng: random.Random, folder: Path) -> Case:
    from saebench.execute.status import read_status
    from saebench.leaderboard import diff, load, load_groups
    from saebench.leaderboard.pages.terminal import summary

    readers = (
        lambda: read_status(folder),
        lambda: diff(folder, folder),
        lambda: load(folder),
        lambda: load_groups(folder),
        lambda: summary([folder]),
    )
    return rng.choice(readers)


def records(rng: random.Random, folder: Path) -> Case:
    """A run folder with one or two hostile files, with a valid digest or without, and one of its readers."""
    found, sound = _records(), _sound()
    hostile = rng.sample(sorted(found), rng.choice((1, 1, 2)))
    beside = _FEW if rng.random() < 0.7 else _KEPT  # most faults need no more neighbours than a group has
    for name, record in found.items():
        if name not in hostile and not any(part in name for part in beside):
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        seal = _SEALS[name.partition("/")[0]]
        if name not in hostile:
            path.write_bytes(sound[name])
        elif rng.random() < 0.2:
            path.write_bytes(mutate_bytes(rng, sound[name], [b"{}"], how_often(rng)))
        else:
            bulk = {key: record[key] for key in record if key not in ("facts", seal)} if rng.random() < 0.1 else record
            changed = mutate_tree(rng, bulk, [found["plan.json"]], how_often(rng))
            try:
                path.write_bytes(as_json(sealed(changed, seal)))
            except (ValueError, TypeError, AttributeError, RecursionError):  # what has no digest is written without
                path.write_bytes(as_json(changed))
    reader = rng.random()
    if reader < 0.01:  # charts take a second
        return lambda: _page(folder)
    return (lambda: _tables(folder)) if reader < 0.5 else _other_readers(rng, folder)


# ---- SAEs of other libraries -----------------------------------------------------------------------------------------


@functools.cache
def _foreign() -> list[dict[str, bytes]]:
    """Small folders of every format, as the bytes of their files."""
    import numpy as np
    import torch
    from safetensors.numpy import save

    draw = np.random.default_rng(0)
    w = {
        name: draw.standard_normal(shape).astype(np.float32)
        for name, shape in (("W_dec", (12, 4)), ("W_enc", (4, 12)), ("b_enc", (12,)), ("b_dec", (4,)))
    }
    linear = {"decoder.weight": w["W_dec"].T.copy(), "encoder.weight": w["W_enc"].T.copy(), "bias": w["b_dec"]}

    def saved(write: Any, *arguments: Any, **options: Any) -> bytes:
        buffer = io.BytesIO()
        write(buffer, *arguments, **options)
        return buffer.getvalue()

    def pt(value: Any) -> bytes:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        return buffer.getvalue()

    tensors = {name: torch.from_numpy(value.copy()) for name, value in linear.items()}
    sae_lens = {"d_in": 4, "d_sae": 12, "architecture": "standard", "normalize_activations": "none"}
    return [
        {
            "cfg.json": as_json(sae_lens),
            "sae_weights.safetensors": save(w),
            "sparsity.safetensors": save({"sparsity": np.zeros(12, np.float32)}),
        },
        {
            "cfg.json": as_json({"d_in": 4, "num_latents": 0, "expansion_factor": 3}),
            "sae.safetensors": save({**linear, "W_dec": w["W_dec"]}),
        },
        {
            "config.json": as_json({"trainer": {"activation_dim": 4, "dict_size": 12, "dict_class": "AutoEncoder"}}),
            "ae.pt": pt(tensors),
        },
        {
            "config.json": as_json({"d_model": 4, "d_sae": 12, "act_fn": "relu"}),
            "sae_weights.safetensors": save({"W_D": w["W_dec"], "W_E": w["W_enc"]}),
        },
        {"params.npz": saved(np.savez_compressed, **w)},
        {"plain.npy": saved(np.save, w["W_dec"])},
        {"plain.npz": saved(np.savez, W_dec=w["W_dec"])},
        {"plain.pt": pt({"cfg": {"d_in": 4}, "state_dict": tensors})},
        {"plain.safetensors": save({"W_dec": w["W_dec"].astype(np.float16)})},
    ]


def _match(path: Path, sound: Path) -> None:
    from saebench import host
    from saebench.compare.pair import match_folders
    from saebench.compare.terminal import page

    with mock.patch.object(host, "load_catalog", return_value=_planner()[0]):  # entry points are read once
        comparison = match_folders(path, sound, null=False)
    json.dumps(comparison.to_json(), allow_nan=False)
    page(comparison).encode("utf-8")


def foreign(rng: random.Random, folder: Path) -> Case:
    """A folder or a file of another library with a hostile config or hostile weights, matched with a sound one."""
    bases = _foreign()
    files = dict(rng.choice(bases))
    name = rng.choice(sorted(files))
    others = [base[other] for base in bases for other in base if other.endswith(Path(name).suffix)]
    if name.endswith(".json") and rng.random() < 0.7:
        files[name] = as_json(mutate_tree(rng, json.loads(files[name]), [], how_often(rng)))
    elif name.endswith(".safetensors") and rng.random() < 0.5:  # the header is JSON of its own, behind its length
        size = int.from_bytes(files[name][:8], "little")
        header = as_json(mutate_tree(rng, json.loads(files[name][8 : 8 + size]), [], how_often(rng)))
        files[name] = len(header).to_bytes(8, "little") + header + files[name][8 + size :]
    else:
        files[name] = mutate_bytes(rng, files[name], others, how_often(rng))
    if rng.random() < 0.05:
        files[rng.choice(("a/", "")) + name] = files.pop(name)
    for other, data in files.items():
        (folder / "x" / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / "x" / other).write_bytes(data)
    sound = folder / "sound.npy"
    sound.write_bytes(bases[5]["plain.npy"])
    path = folder / "x" / name if len(files) == 1 and rng.random() < 0.9 else folder / "x"
    return lambda: _match(path, sound)


# ---- corpora ---------------------------------------------------------------------------------------------------------


@functools.cache
def _corpora() -> dict[str, bytes]:
    """Small files of every kind of text, by name."""
    import pyarrow
    from pyarrow import parquet

    texts = [
        f"Story {i}. Once upon a time there was a {word}.\n\nIt ran."
        for i, word in enumerate(["cat", "dög", "日本", "fox"] * 10)
    ]
    lines = b"".join(json.dumps({"text": text, "n": i}).encode() + b"\n" for i, text in enumerate(texts))
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": texts, "n": list(range(len(texts)))}), buffer)
    return {
        "a.txt": "\n\n".join(texts).encode(),
        "b.txt": "\n<|endoftext|>\n".join(texts).encode(),
        "c.jsonl": lines,
        "d.jsonl.gz": gzip.compress(lines, mtime=0),
        "e.parquet": buffer.getvalue(),
    }


def _read_corpus(path: Path, column: str) -> None:
    catalog, _ = _planner()
    spec = catalog.dataset("local").spec
    options = spec.options(path=str(path), text_column=column)
    problems = spec.check(options) if spec.check is not None else ()
    for problem in problems:
        str(problem)
    text = resolve(spec.open)(options, None)
    canonical_json(dict(text.manifest())).encode("utf-8")
    canonical_json(dict(spec.recipe(options))).encode("utf-8")
    spec.inspect(options)
    for document in text.documents():
        document.text.encode("utf-8")


def corpora(rng: random.Random, folder: Path) -> Case:
    """One hostile file of text, or a folder that holds it among others, opened and read to the end."""
    found = _corpora()
    name = rng.choice(sorted(found))
    data = found[name]
    inside = gzip.decompress(data) if name.endswith(".gz") else data
    if name.endswith("parquet") or (name.endswith(".gz") and rng.random() < 0.4):
        data = mutate_bytes(rng, data, list(found.values()), how_often(rng))
    elif "jsonl" in name and rng.random() < 0.5:
        rows = mutate_tree(rng, [json.loads(line) for line in inside.splitlines()], [], how_often(rng))
        data = b"\n".join(map(as_json, rows if isinstance(rows, list) else [rows]))
        data = gzip.compress(data, mtime=0) if name.endswith(".gz") else data
    else:
        data = mutate_bytes(rng, inside, list(found.values()), how_often(rng))
        if rng.random() < 0.03:
            data = data * min(rng.choice((100, 500)), 1 + 4_000_000 // (1 + len(data)))
        data = gzip.compress(data, 1, mtime=0) if name.endswith(".gz") else data
    if rng.random() < 0.1:  # a file that is not what its name says
        name = rng.choice(sorted(found))
    (folder / name).write_bytes(data)
    column = rng.choice(("text", "text", "text", "text", "n", "", "\x1b", "t" * 300))
    return lambda: _read_corpus(folder if rng.random() < 0.2 else folder / name, column)


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {
    "suites": suites,
    "records": records,
    "foreign": foreign,
    "corpora": corpora,
}
