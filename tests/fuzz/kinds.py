"""What is fuzzed: each kind makes one input in a folder from a random generator, and gives the call that reads it."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from mutate import as_json, how_often, mutate_bytes, mutate_tree

Case = Callable[[], object]

# ---- suites ------------------------------------------------------------------------------------------------------------

_SMALL = """
schema: 1
name: small
datasets:
  truth: {plugin: synthetic, d_in: 16, n_features: 32}
entries:
  - {name: a, architecture: topk, dataset: truth, config: {d_sae: 32}, sweep: {k: [2, 4]}, train: {batch: 64, lr: 0.001, betas: [0.9, 0.99], eps: 1.0e-8, clip: 1.0, warmup: 0.1, decay: 0.2}}
  - {name: b, architecture: topk, dataset: truth, init_from: {entry: a, at: {k: 2}}}
  - {name: c, architecture: jumprelu, dataset: truth, config: {d_sae: 32, target_l0: 4}, tune: {metric: fvu, lr: [0.001, 0.01]}}
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
    from saebench.data import ModelBook
    from saebench.host import load_catalog

    catalog = load_catalog(())
    return catalog, ModelBook(catalog)


@functools.cache
def _suites() -> list[Any]:
    from saebench.config import builtin_suites

    return [yaml.safe_load(_SMALL), yaml.safe_load(builtin_suites()["quickstart"].read_text("utf-8"))]


def _plan(path: Path) -> None:
    from saebench.artifacts import canonical_json
    from saebench.config import load_suite
    from saebench.plan import make_plan, print_plan

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
        if rng.random() < 0.5:
            data = as_json(changed)
        else:
            data = yaml.safe_dump(changed, allow_unicode=True, sort_keys=False).encode("utf-8", "surrogatepass")
    else:
        texts = [yaml.safe_dump(one, sort_keys=False).encode() for one in trees]
        data = mutate_bytes(rng, texts[0] if tree is trees[0] else texts[1], texts, how_often(rng))
    path.write_bytes(data)
    return lambda: _plan(path)


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {"suites": suites}
