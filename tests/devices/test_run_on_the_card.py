"""A whole run on the simulated card: every architecture, metric and kind of data, against the same run on the CPU."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from simulated_device import simulated_cuda

import saebench.leaderboard
from saebench.jobs import run_suite
from saebench.nn.kernels import backends
from saebench.plan.grouping.memory_batches import memory_capped
from saebench.testing import make_model

SUITE = """
schema: 1
name: card
models:
  - {{id: {model}, hookpoints: [layers.0], context: 12}}
datasets:
  mine: {{plugin: local, path: {text}}}
  truth: {{plugin: synthetic, d_in: 12, n_features: 24}}
entries:
  - {{name: text, architecture: topk, dataset: mine, config: {{d_sae: 32, k: 4}}}}
  - {{name: topk, architecture: topk, dataset: truth, config: {{d_sae: 24, k: 3}}}}
  - {{name: jumprelu, architecture: jumprelu, dataset: truth, config: {{d_sae: 24, target_l0: 3}}}}
  - {{name: batch-topk, architecture: batch-topk, dataset: truth, config: {{d_sae: 24, k: 3}}}}
  - {{name: relu-l1, architecture: relu-l1, dataset: truth, config: {{d_sae: 24}}}}
  - {{name: expander, architecture: expander, dataset: truth, config: {{d_sae: 24, k: 3, degree: 5, reaim_every: 0.3}}}}
  - {{name: ssae, architecture: ssae, dataset: truth, init_from: topk, config: {{tilt: 1.0}}}}
train: {{batch: 64}}
activations: {{source: live}}
evaluation: {{datasets: [mine], tokens: 256, loss_tokens: 64, density_tokens: 256}}
budget: {{primary: tokens, tokens: 512, memory_gb: 4}}
seeds: {{init: [0, 1]}}
controls: true
metrics: extended
"""
COUNTED = 0.2
"""Relative, of FLOPs in a training this short, of which hooks are the most."""
CLOSE = 2e-3
"""Relative. Equal kernels give equal bits; where another way is taken, rounding differs and eight steps enlarge it."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of both runs."""
    folder = tmp_path_factory.mktemp("card")
    make_model(folder / "model", "llama")
    words = random.Random(0)
    (folder / "text.txt").write_text("\n\n".join(" ".join(words.choices("abcdefgh", k=40)) for _ in range(150)))
    suite = folder / "card.yaml"
    suite.write_text(SUITE.format(model=folder / "model", text=folder / "text.txt"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saebench.leaderboard, "build", lambda *args, **kwargs: None)  # made from records, not on a device
        patch.setattr(saebench.leaderboard, "summary", lambda folders: "")
        with backends.force("plain"):
            run_suite(suite, out=folder / "cpu")
        with simulated_cuda():
            run_suite(suite, out=folder / "cuda", device="cuda")
    return {name: folder / name for name in ("cpu", "cuda")}


def facts_of(folder: Path) -> dict[str, Any]:
    paths = sorted([*folder.glob("records/**/*.json"), *folder.glob("groups/**/*.json")])
    return {path.relative_to(folder).as_posix(): json.loads(path.read_text())["facts"] for path in paths}


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, float) for value in values) or all(
        isinstance(value, int) and not isinstance(value, bool) for value in values
    )


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """Where two facts differ by more than rounding."""
    if where.endswith((".hooks", ".weights_digest")):  # kernels that ran, and every last bit
        return
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            yield from differences(a.get(name), b.get(name), f"{where}.{name}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from differences(left, right, f"{where}[{index}]")
    elif _numbers(a, b):
        # what hooks spend is counted on the kernels that run, which are others there
        counted = "flops" in where
        if not math.isclose(a, b, rel_tol=COUNTED if counted else CLOSE, abs_tol=1e-5):
            yield f"{where}: {a} against {b}"
    elif a != b:
        yield f"{where}: {a} against {b}"


def test_every_score_is_there_and_is_that_of_the_processor(runs: dict[str, Path]) -> None:
    here, there = facts_of(runs["cpu"]), facts_of(runs["cuda"])
    assert here.keys() == there.keys()
    # seeds, sites, and the parent of a child trained on
    assert len([path for path in there if path.startswith("records")]) == 7 * 2 + 4 * 2 + 2
    assert {facts["status"] for facts in there.values()} == {"ok"}
    for path, facts in there.items():
        reasons = {id: metric["reason"] for id, metric in facts["metrics"].items()}
        assert reasons == {id: metric["reason"] for id, metric in here[path]["metrics"].items()}
    found = list(differences(here, there))
    assert not found, "\n".join(found[:20])


SMALL = """
schema: 1
name: small
models:
  - {{id: docs-lm, hookpoints: [layers.0], context: 12}}
datasets:
  mine: {{plugin: local, path: {text}}}
entries:
  - {{name: topk, architecture: topk, dataset: mine, config: {{d_sae: 32, k: 4}}}}
train: {{batch: 64}}
activations: {{source: live}}
evaluation: {{datasets: [mine], tokens: 128, loss_tokens: 64, density_tokens: 128}}
budget: {{primary: tokens, tokens: 256, memory_gb: 0.005}}
"""


def test_the_limit_of_a_cell_does_not_count_the_language_model(tmp_path: Path) -> None:
    """The model alone has 14 MB, the cell is given 5 MB and needs fewer."""
    suite = tmp_path / "small.yaml"
    (tmp_path / "text.txt").write_text("\n\n".join(f"once upon a time {word} went home" for word in range(400)))
    suite.write_text(SMALL.format(text=tmp_path / "text.txt"))
    with simulated_cuda() as card, pytest.MonkeyPatch.context() as patch:
        patch.setattr(saebench.leaderboard, "build", lambda *args, **kwargs: None)
        patch.setattr(saebench.leaderboard, "summary", lambda folders: "")
        run_suite(suite, out=tmp_path / "run", device="cuda")
        assert card.limit_bytes == card.total_bytes
    found = facts_of(tmp_path / "run")
    assert {facts["status"] for path, facts in found.items() if path.startswith("records")} == {"ok"}


def test_a_limit_holds_beyond_what_is_there_and_ends() -> None:
    with simulated_cuda(1 << 30) as card:
        held = torch.zeros(1 << 20, device="cuda")
        with memory_capped("cuda", 1 << 20):
            torch.zeros(1 << 17, device="cuda")
            with pytest.raises(torch.OutOfMemoryError):
                torch.zeros(1 << 19, device="cuda")
        assert torch.zeros(1 << 19, device="cuda").numel() < held.numel()
        with memory_capped("cuda", None), memory_capped("cpu", 1):
            assert card.limit_bytes == card.total_bytes
