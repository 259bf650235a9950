"""`benchmarks/engine` runs from end to end at shrunken sizes, finds equal what must be equal, and judges rightly."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "engine"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are beside the tests in the repository")


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"engine_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(FOLDER / "run.py"), "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_case_runs(tmp_path: Path) -> None:
    done = run("--small", "--rounds", "1", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    cases = json.loads((tmp_path / "engine.json").read_text("utf-8"))["cases"]
    assert list(cases) == ["harness", "cohort", "live", "store", "exact"]
    for case in cases.values():
        assert all(row["median_s"] > 0 and len(row["seconds"]) == 1 for row in case["rows"])
        assert {figure["meets_must"] for figure in case["figures"]} == {None}  # bars are for real sizes
    equal = [value for case in cases.values() for fact, value in case["facts"].items() if "bit for bit" in fact]
    assert equal == ["yes", "yes"]
    effects = [figure for figure in cases["store"]["figures"] if "FVU" in figure["name"]]
    assert len(effects) == 4
    assert all(0 < abs(value) < 0.1 for figure in effects for value in figure["values"])
    table = (tmp_path / "engine.md").read_text("utf-8")
    assert all(f"## {name}: " in table for name in cases)
    assert table.strip() == load("report").markdown({"cases": cases}).strip()


def test_an_unknown_case_is_refused(tmp_path: Path) -> None:
    done = run("--cases", "harness,growth", "--out", str(tmp_path))
    assert done.returncode == 1
    assert "no case growth. Use all, or some of harness, cohort, live, store, exact." in done.stderr
    assert not list(tmp_path.iterdir())


def test_figures_are_judged_by_their_medians() -> None:
    report = load("report")
    most = report.Figure("a", [1.0, 9.0, 2.0], must=2.0, goal=1.5)
    assert (most.holds(most.must), most.holds(most.goal), most.holds(None)) == (True, False, None)
    least = report.Figure("b", [1.0, 9.0, 2.0], must=2.5, goal=2.0, most=False)
    assert (least.holds(least.must), least.holds(least.goal)) == (False, True)
    assert report.ratios([2.0, 9.0], [4.0, 3.0]) == [0.5, 3.0]
    row = report.Row("c", [4.0, 1.0, 2.0], tokens=100, n_bytes=6).to_json()
    assert (row["median_s"], row["tokens_per_s"], row["bytes_per_s"]) == (2.0, 50.0, 3.0)


def test_a_clock_counts_reading_and_steps_but_not_what_comes_between(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load("clock")
    clock = SimpleNamespace(time=0.0)
    monkeypatch.setattr(module, "perf_counter", lambda: clock.time)

    class Source:
        n_tokens, forward_flops_per_token = 8, 3
        data_cost, data_s, forward_s = {"tokens": 0, "flops": 0}, 0.0, 0.0

        def batches(self, batch, seed, start):
            for index in range(start, 100):
                clock.time += 1.0  # reading
                yield index

    def between(_index: int) -> None:
        clock.time += 100.0

    timed = module.Clock(Source(), torch.zeros(4, 2), torch.device("cpu"), between)
    batches = timed.batches(2, 0)
    seen = []
    for batch in islice(batches, 3):
        clock.time += 10.0 * (batch + 1)  # a step
        seen.append(batch)
    batches.close()  # as the loop does right behind its last step
    assert seen == [0, 1, 2]
    assert timed.spans == [11.0, 21.0, 31.0]
    assert (timed.n_tokens, timed.forward_flops_per_token, len(timed.init_sample(3))) == (8, 3, 3)
