"""Hostile inputs of every kind: refused in plain lines or read, never a bug, a hang or gigabytes.

By hand: run.py, with 100,000.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    if (found := sys.modules.get(name)) is not None and getattr(found, "__file__", "") == str(
        Path(__file__).with_name(f"{name}.py")
    ):
        return found
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


mutate, judge, kinds = _load("mutate"), _load("judge"), _load("kinds")
COUNTS = {"suites": 600, "records": 150, "foreign": 750, "corpora": 500}


@pytest.mark.parametrize("kind", list(COUNTS))
def test_no_input_is_a_bug(kind: str, tmp_path: Path) -> None:
    bugs = []
    fine = 0
    for i in range(COUNTS[kind]):
        folder = tmp_path / str(i)
        folder.mkdir()
        verdict = judge.judge(kinds.KINDS[kind](random.Random(f"{kind} 0 {i}"), folder))
        fine += verdict.refused is None
        if verdict.bug is not None:
            bugs.append(f"run.py --kind {kind} --seed 0 --first {i} --n 1: {verdict.bug}")
    assert bugs == []
    assert 0 < fine < COUNTS[kind]  # some are read, some refused: the inputs reach what is behind the checks


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never")


def test_the_judge_tells_bugs_from_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    from saebench.api import SuiteError

    def raising(error: BaseException) -> object:
        def call() -> None:
            raise error

        return judge.judge(call).bug

    assert judge.judge(lambda: None).bug is None
    assert raising(SuiteError("s.yaml:1 k: got 9")) is None
    assert raising(SuiteError("x" * 2000)) == "a refusal of 1 lines, the longest of 2000 characters"
    assert raising(SuiteError("")) == "a refusal without words"
    assert str(raising(OverflowError("int too large"))).startswith("OverflowError at test_fuzz.py")
    assert str(raising(SystemExit(3))).startswith("SystemExit")
    assert str(raising(RecursionError("deep"))).startswith("RecursionError")
    monkeypatch.setattr(judge, "CPU_S", 0.05)

    def forever() -> None:
        while True:
            pass

    assert judge.judge(forever).bug == "more than 0 s of CPU"


def test_a_check_that_is_gone_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fuzzer is worth what it finds: where records are believed in any shape it finds bugs."""
    from saebench.artifacts import records

    monkeypatch.setattr(records, "misshapen", lambda kind, record: None)
    found = 0
    for i in range(100):
        folder = tmp_path / str(i)
        folder.mkdir()
        verdict = judge.judge(kinds.KINDS["records"](random.Random(f"guard {i}"), folder))
        found += verdict.bug is not None
    assert found > 2
