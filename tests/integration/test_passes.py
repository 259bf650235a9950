"""Cells side by side in one run: hookpoints in one pass, memory, a kill in training, live and stored activations."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from saebench.activations.sources.run_data import RunData
from saebench.artifacts import RunFolder, iter_records, read_plan
from saebench.execute import training_pass
from saebench.jobs import run_suite
from saebench.leaderboard import diff
from saebench.testing import make_model

pytestmark = pytest.mark.usefixtures("without_pages")

SUITE = """
schema: 1
name: passes
models:
  - {{id: {model}, hookpoints: [layers.0, layers.1], context: 32}}
datasets:
  mine: {{plugin: local, path: {text}}}
entries:
  - {{name: topk, architecture: topk, dataset: mine, config: {{d_sae: 64}}, sweep: {{k: [4, 8]}}}}
  - {{name: batch, architecture: batch-topk, dataset: mine, config: {{d_sae: 64, k: 4}}}}
  - {{name: ssae, architecture: ssae, dataset: mine, init_from: {{entry: topk, at: {{k: 4}}}}, config: {{tilt: 1.0}}}}
train: {{batch: 256}}
activations: {{source: {source}, shuffle: 1_000}}
evaluation: {{datasets: [mine], tokens: 500, loss_tokens: 200, density_tokens: 500}}
budget: {{primary: tokens, tokens: 4_000}}
seeds: {{init: [0, 1]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model and text."""
    from suites import text_file

    folder = tmp_path_factory.mktemp("passes")
    make_model(folder / "model", "llama")
    text_file(folder / "text.txt")
    return folder


def write_suite(folder: Path, name: str = "suite.yaml", *, source: str = "store") -> Path:
    path = folder / name
    path.write_text(SUITE.format(model=folder / "model", text=folder / "text.txt", source=source), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of it."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = run_suite(write_suite(folder), out=run)
    assert set(result.statuses.values()) == {"ok"}, result.statuses
    return run


def weights(run: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(run.glob("checkpoints/*/sae.safetensors"))}


def test_hookpoints_of_one_model_form_one_pass(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[str]] = []
    trained: list[int] = []
    opened, pass_of = RunData.training_pass, training_pass.PassRunner._train

    def opening(self: Any, cohorts: Any, reads: Any) -> Any:
        passes.append([cohort.model.hookpoint_name for cohort in cohorts])
        return opened(self, cohorts, reads)

    def train(self: Any, cells: Any, *arguments: Any) -> None:
        trained.append(len(cells))
        pass_of(self, cells, *arguments)

    monkeypatch.setattr(RunData, "training_pass", opening)
    monkeypatch.setattr(training_pass.PassRunner, "_train", train)
    run_suite(write_suite(folder), out=tmp_path / "run")
    assert passes == [["layers.0", "layers.1"]]
    assert trained == [12, 8]  # topk k4 and k8 and batch at two places and seeds; then children and their controls


def test_passes_cut_by_memory_give_the_same_bits(
    folder: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_pass, "memory_limit", lambda device, memory_gb: 1)
    run_suite(write_suite(folder), out=tmp_path / "run")
    assert diff(whole, tmp_path / "run") == []
    assert weights(whole) == weights(tmp_path / "run")


def test_live_activations_train_the_same_weights(folder: Path, whole: Path, tmp_path: Path) -> None:
    run_suite(write_suite(folder, "live.yaml", source="live"), out=tmp_path / "run")
    assert weights(whole) == weights(tmp_path / "run")


def test_a_run_killed_in_the_middle_of_training_ends_bitwise_equal(folder: Path, whole: Path, tmp_path: Path) -> None:
    suite = write_suite(folder)
    code = (
        "import saebench.execute.pipeline as p, functools\n"
        "p.Pipeline = functools.partial(p.Pipeline, snapshot_every_s=0.0)\n"
        "from saebench.cli import main\n"
        f"main(['run', {str(suite)!r}, '--out', {str(tmp_path / 'killed')!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    states = tmp_path / "killed" / "snapshots"

    def steps() -> int:
        try:
            return max(
                (json.loads(path.read_text())["numbers"]["steps"] for path in states.glob("[0-9a-f]*/state.json")),
                default=0,
            )
        except (OSError, ValueError):
            return 0

    while process.poll() is None and steps() < 4:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/records/**/*.json"))
    assert list(states.glob("[0-9a-f]*"))
    lines: list[str] = []
    run_suite(suite, out=tmp_path / "killed", say=lines.append)
    assert not [line for line in lines if "snapshot" in line]
    assert diff(whole, tmp_path / "killed") == []
    assert weights(whole) == weights(tmp_path / "killed")
    assert not list(states.glob("*"))


def test_records_hold_budget_spend_and_seconds(whole: Path) -> None:
    for _, record in iter_records(whole):
        facts, measured = record["facts"], record["measured"]
        share = None if facts["control"] else 4_000
        assert facts["budget"] == {"primary": "tokens", "share": share, "tokens": 4_000, "counts": "train"}
        assert facts["training"]["over_spent"] == 96
        assert facts["training"]["numerics"]["parameters"] == "float32"
        assert measured["backend"] == facts["training"]["numerics"]["backend"]
        assert measured["threads"] >= 1
        assert measured["host"]["cpu_path"]
        assert len(measured["trajectory_s"]) == len(facts["training"]["trajectory"])
        spent = measured["spent_s"]
        assert set(spent) == {"train", "data", "parent", "forward", "all", "scoring"}
        assert (spent["parent"] > 0) == (facts["entry"] in ("ssae", "topk-continued"))
        assert min(spent["train"], spent["forward"], spent["scoring"]) > 0
        assert (spent["data"] > 0) == (spent["parent"] == 0)  # a child has its parent's data
        assert spent["all"] == sum(spent[kind] for kind in ("train", "data", "forward", "parent"))
        assert spent["train"] == measured["times"]["train_s"]
        assert measured["peak_memory"]["bytes"] > 0
        assert "cells began" in measured["peak_memory"]["scope"]
        assert measured["memory"]["predicted_bytes"] == read_plan(RunFolder(whole))["estimate"]["memory_bytes"]
        assert measured["memory"]["peak_bytes"] >= 0.99 * measured["peak_memory"]["bytes"]  # pages come in batches


def test_all_in_is_added_up_alike_by_plan_record_and_hand(whole: Path) -> None:
    """What an outsider adds up from records: each cell's own work, and all of its parent's."""
    found = {record["cell_id"]: record["facts"] for _, record in iter_records(whole)}
    predicted = read_plan(RunFolder(whole))["estimate"]["cells"]

    def all_in(cell_id: str) -> tuple[int, int]:
        facts = found[cell_id]
        spent = facts["spent"]
        tokens, flops = all_in(facts["parent"]) if facts["parent"] else (0, 0)
        return (
            spent["train"]["tokens"] + spent["data"]["tokens"] + tokens,
            spent["train"]["flops"] + spent["data"]["flops"] + spent["forward"]["flops"] + flops,
        )

    def recorded_flops(cell_id: str) -> int:
        return int(found[cell_id]["spent"]["train"]["flops"])

    def trained(cell_id: str, flops_of: Callable[[str], int]) -> int:
        """Of a cell and its ancestors."""
        parent = found[cell_id]["parent"]
        return flops_of(cell_id) + (trained(parent, flops_of) if parent else 0)

    for cell_id, facts in found.items():
        recorded = facts["spent"]["all"]
        assert (recorded["tokens"], recorded["flops"]) == all_in(cell_id)
        assert recorded["tokens"] == predicted[cell_id]["all_tokens"] == 4_096 * (2 if facts["parent"] else 1)
        # what training comes to, only training knows (dead latents, inference forms); the rest is known before
        assert recorded["flops"] - trained(cell_id, recorded_flops) == (
            predicted[cell_id]["all_flops"] - trained(cell_id, lambda one: predicted[one]["train_flops"])
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_cap_on_device_memory_ends_as_over_budget(folder: Path, tmp_path: Path) -> None:
    suite = tmp_path / "capped.yaml"
    text = write_suite(folder).read_text().replace("tokens: 4_000}", "tokens: 4_000, memory_gb: 0.0001}")
    suite.write_text(text)
    result = run_suite(suite, out=tmp_path / "run", device="cuda")
    assert set(result.statuses.values()) <= {"over_budget", "skipped"}
