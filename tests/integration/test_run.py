"""The main job on a tiny model: run, run again, kill and go on, rebuild, compare."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from suites import quick_suite

from saebench.artifacts import iter_groups, iter_records
from saebench.execute.status import read_status
from saebench.jobs import load_sae, run_suite
from saebench.leaderboard import build, diff


def records(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        f"{r['facts']['entry']} {r['facts']['point']} s{r['facts']['init_seed']}": r for _, r in iter_records(folder)
    }


def test_every_cell_has_a_record_and_every_metric_a_value_or_a_reason(finished: Path) -> None:
    found = records(finished)
    assert {name.split()[0] for name in found} == {
        "topk", "faithful", "ssae", "truth", "control-random", "control-permuted", "control-pca", "control-identity",
        "topk-continued",
    }  # fmt: skip
    assert sum(name.startswith("topk ") for name in found) == 4
    for record in found.values():
        for name, metric in {**record["facts"]["metrics"], **record["measured"]["metrics"]}.items():
            assert (metric["value"] is None) == bool(metric["reason"]), (name, metric)
    topk = found["topk k4 s0"]["facts"]
    assert topk["metrics"]["l0"]["value"] <= 4
    assert 0 < topk["metrics"]["fvu"]["value"] < 1
    assert topk["metrics"]["fvu"]["on"] == "mine"
    assert topk["metrics"]["ce-recovered-mean"]["unit"] in ("fraction", "ratio")
    assert topk["metrics"]["truth-mcc"]["value"] is None
    assert found["truth default s0"]["facts"]["metrics"]["truth-mcc"]["value"] > 0


def test_equal_budgets_and_who_paid(finished: Path) -> None:
    found = records(finished)
    for name, record in found.items():
        facts = record["facts"]
        if facts["control"]:
            assert facts["budget"]["share"] is None, name
        if facts["control"] and not facts.get("continued"):
            assert facts["budget"]["tokens"] is None, name
            continue
        assert (
            facts["budget"]["tokens"]
            <= facts["spent"]["train"]["tokens"]
            < facts["budget"]["tokens"] + facts["train"]["batch"]
        ), name
        assert len(facts["training"]["trajectory"]) <= 12
    assert (
        found["ssae k4 s0"]["facts"]["spent"]["parent"]["tokens"]
        == found["topk k4 s0"]["facts"]["spent"]["train"]["tokens"]
    )
    assert found["faithful default s0"]["facts"]["spent"]["data"]["tokens"] > 0


def test_controls_are_floor_and_ceiling(finished: Path) -> None:
    found = records(finished)
    identity = next(
        record["facts"]["metrics"]
        for name, record in found.items()
        if name.startswith("control-identity") and record["facts"]["model"]
    )
    assert identity["fvu"]["value"] == identity["kl"]["value"] == 0
    assert identity["variance-explained"]["value"] == 1
    assert identity["ce-spliced"]["value"] == identity["ce-clean"]["value"]
    assert identity["ce-recovered-zero"]["value"] in (None, 1)
    assert identity["kl-recovered"]["value"] in (None, 1)
    random = next(
        record["facts"]["metrics"]
        for name, record in found.items()
        if name.startswith("control-random") and record["facts"]["model"]
    )
    assert random["fvu"]["value"] > found["topk k4 s0"]["facts"]["metrics"]["fvu"]["value"]


def test_groups_hold_stability(finished: Path) -> None:
    groups = {f"{g['facts']['entry']} {g['facts']['point']}": g for _, g in iter_groups(finished)}
    metrics = groups["topk k4"]["facts"]["metrics"]
    assert 0 <= metrics["sfr"]["value"] <= 1
    assert metrics["matched-cosine"]["value"] > metrics["matched-cosine-null"]["value"]
    assert len(groups["topk k4"]["facts"]["members"]) == 2


def test_the_checkpoint_is_an_sae_in_inference_form(finished: Path) -> None:
    import torch

    record = records(finished)["topk k4 s0"]
    sae = load_sae(finished / "checkpoints" / record["cell_id"][:16])
    x = torch.randn(5, record["facts"]["d_in"], generator=torch.Generator().manual_seed(0))
    assert sae.decode(sae.encode(x)).shape == x.shape


def test_running_again_does_nothing_and_changes_nothing(finished: Path, suite: Path) -> None:
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    assert run_suite(suite, out=finished).exit_status == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.usefixtures("without_pages")
def test_another_run_has_equal_facts(finished: Path, suite: Path, tmp_path: Path) -> None:
    run_suite(suite, out=tmp_path / "again")
    assert diff(finished, tmp_path / "again") == []
    for path in sorted((finished / "checkpoints").rglob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(finished)).read_bytes()


@pytest.mark.usefixtures("without_pages")
def test_a_killed_run_goes_on_with_equal_facts(tmp_path: Path) -> None:
    suite, folder = quick_suite(tmp_path), tmp_path / "killed"
    command = [sys.executable, "-m", "saebench", "run", str(suite), "--out", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("records/**/*.json"))) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(folder.glob("records/**/*.json")))
    assert done >= 2
    status = read_status(folder)
    assert status.counts()["ok"] == done
    assert not status.running
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    run_suite(suite, out=tmp_path / "whole")
    assert diff(tmp_path / "whole", folder) == []


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_a_run_that_is_ended_leaves_nothing_half_written(tmp_path: Path, number: int, status: int, words: str) -> None:
    suite, folder = quick_suite(tmp_path), tmp_path / "interrupted"
    command = [sys.executable, "-m", "saebench", "run", str(suite), "--out", str(folder)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(folder.glob("records/**/*.json")):
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == status, stderr
    assert f"{words}. Run the same command again" in stderr
    assert "Traceback" not in stderr
    assert not list(folder.rglob(".*.tmp"))
    for path in folder.glob("records/**/*.json"):
        json.loads(path.read_text())


def test_the_leaderboard_from_records_alone_is_byte_identical(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("records", "groups"):
        shutil.copytree(finished / part, copy / part)
    build([copy], tmp_path / "board")
    for path in sorted((finished / "leaderboard").rglob("*")):
        if path.is_file():
            assert (
                path.read_bytes() == (tmp_path / "board" / path.relative_to(finished / "leaderboard")).read_bytes()
            ), path.name


@pytest.mark.usefixtures("without_pages")
def test_only_runs_an_entry_and_its_parents(suite: Path, finished: Path, tmp_path: Path) -> None:
    result = run_suite(suite, out=tmp_path / "only", only="ssae")
    assert result.exit_status == 0
    found = records(tmp_path / "only")
    controls = {"topk-continued k4 s0", "topk-continued k4 s1"}
    assert set(found) == {"topk k4 s0", "topk k4 s1", "ssae k4 s0", "ssae k4 s1", *controls}
    whole = records(finished)
    assert all(found[name]["facts"] == whole[name]["facts"] for name in found)


def test_a_failing_architecture_is_a_record_and_the_others_go_on(suite: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "faulty.py"
    plugin.write_text(
        "from dataclasses import dataclass\n"
        "from saebench.api import ArchitectureSpec, Cost, hookimpl\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    d_sae: int\n"
        "def build(config, **_):\n"
        "    raise RuntimeError('cannot build this')\n"
        "@hookimpl\n"
        "def saebench_architectures():\n"
        "    return [ArchitectureSpec('faulty', '1', Config, build, lambda c, s: Cost(1, 4, 1, 1, 1, 1, 1, 4.0))]\n"
    )
    text = (
        suite.read_text()
        .replace(
            "entries:\n", "entries:\n  - {name: faulty, architecture: faulty, dataset: mine, config: {d_sae: 64}}\n"
        )
        .replace("controls: true", "controls: false")
    )
    (tmp_path / "s.yaml").write_text(text)
    result = run_suite(tmp_path / "s.yaml", out=tmp_path / "run", plugins=[plugin])
    assert result.exit_status == 4
    found = records(tmp_path / "run")
    faulty = found["faulty default s0"]["facts"]
    assert faulty["status"] == "failed"
    assert "cannot build this" in faulty["error"]["message"]
    assert found["topk k4 s0"]["facts"]["status"] == "ok"
    page = (tmp_path / "run" / "leaderboard" / "index.html").read_text()
    assert "cannot build this" in page


def test_a_full_disk_is_status_5_and_nothing_is_half_written(tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse the write in the middle, as a full disk does."""
    suite, folder = quick_suite(tmp_path), tmp_path / "full"
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "from saebench.cli import main\n"
        f"main(['run', {str(suite)!r}, '--out', {str(folder)!r}])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 5, result.stderr
    assert "Traceback" not in result.stderr
    assert not list(folder.rglob(".*.tmp"))
    finished = subprocess.run(
        [sys.executable, "-m", "saebench", "run", str(suite), "--out", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
