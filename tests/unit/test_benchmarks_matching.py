"""`benchmarks/matching` runs from end to end at small sizes, and its table says what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "matching"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are beside the tests in the repository")


def test_cases_run_and_agree(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "run.py"),
        "--sizes",
        "64",
        "--kinds",
        "sae,mix",
        "--rounds",
        "1",
        "--threads",
        "1",
    ]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cases = json.loads((tmp_path / "matching.json").read_text("utf-8"))["done"]
    assert set(cases) == {"mix 64 dense", "mix 64 scipy"}  # no trained decoders here: no `sae`
    (dense,), (ours,) = cases["mix 64 dense"], cases["mix 64 scipy"]
    assert ours["proven"] is True and ours["gap"] < 1e-6
    assert ours["total"] == pytest.approx(dense["total"], rel=1e-9)
    assert "dense SciPy" in (tmp_path / "matching.md").read_text("utf-8")
