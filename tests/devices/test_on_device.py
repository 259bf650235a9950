"""`pytest --device`: what a test makes is on the device, what saebench leaves on the processor is found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = (
    "nn/test_linear.py",
    "matching/test_dense.py",
    "train/test_feed.py",
    "score/test_group_codes.py",
)


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "--device", "simulated", *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_rooms_run_on_the_simulated_card():
    done = run(ROOT, *(f"tests/unit/{name}" for name in FILES))
    assert done.returncode == 0, done.stdout


PROBES = """
import pytest, torch
from on_device import OnDevice
from saebench.nn import LinearSAE, unit_rows_

MADE_AT_IMPORT = torch.ones(2, 3)

def test_made_there():
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    sae = LinearSAE(3, 5, torch.Generator().manual_seed(0))
    assert x.is_cuda and MADE_AT_IMPORT.is_cuda and sae.W_enc.is_cuda
    assert x.numpy().shape == (2, 3)
    assert unit_rows_(x).is_cuda

def test_left_behind():
    unit_rows_(torch.ones(2, 3).cpu())

@pytest.mark.cpu("for once")
def test_of_the_processor():
    raise AssertionError

@pytest.mark.real("for once")
def test_of_a_real_card():
    raise AssertionError
"""


def test_what_runs_on_the_processor_alone_fails_or_says_why(tmp_path, monkeypatch):
    """A file of probes takes the place of a room: a test in which only the processor computes is an error."""
    import on_device

    room = tmp_path / "tests" / "unit" / "nn"
    room.mkdir(parents=True)
    (room / "test_probes.py").write_text(PROBES)
    tests = ROOT / "tests"
    for name in ("on_device.py", "simulated_device.py", "conftest.py"):
        text = (tests / name).read_text().replace("TESTS.parent / name", f"Path({str(ROOT)!r}) / name")
        (tmp_path / "tests" / name).write_text(text)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    assert tests == on_device.TESTS
    done = run(tmp_path, "tests")
    assert "2 passed, 2 skipped, 1 error" in done.stdout, done.stdout + done.stderr
    assert "ERROR tests/unit/nn/test_probes.py::test_left_behind" in done.stdout
    assert "saebench computed in this test, and nothing on the device" in done.stdout
    assert "about the processor: for once" in done.stdout
    assert "not on a simulated card: for once" in done.stdout


def test_an_unknown_device_is_refused():
    done = run(ROOT, "--device", "tpu", "tests/unit/nn/test_tilted.py")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "invalid choice: 'tpu'" in done.stderr
