"""The tests marked `gpu`, and the unit tests of nn, train, score and matching with what they make on the device."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from pathlib import Path

import pytest
from notes import Notes

from sections import Setting

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("nn", "train", "score", "matching")
SHORT = ("nn/test_linear.py", "nn/test_by_hand.py", "train/test_step.py", "matching/test_similarity.py")
MOST_LINES = 40
WORKERS = 8


class Collector:
    """Counts what became of the tests, and keeps the first lines of those that failed."""

    def __init__(self, notes: Notes) -> None:
        self.notes, self.counts, self.skipped = notes, Counter[str](), Counter[str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Each test has a report of its call, and of setup and teardown where these fail or skip."""
        if report.when != "call" and report.passed:
            return
        self.counts[report.outcome] += 1
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skipped[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
        if report.failed and self.counts["failed"] <= MOST_LINES:
            crash = getattr(report.longrepr, "reprcrash", None)
            said = str(crash.message if crash else report.longrepr).strip().splitlines()
            self.notes.fail(f"{report.nodeid}: {said[0][:300] if said else report.when}")
        self.told()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported."""
        if report.failed:
            self.notes.fail(f"{report.nodeid}: {str(report.longrepr).strip().splitlines()[-1][:300]}")

    def told(self) -> None:
        """What is known so far."""
        self.notes.facts["tests"] = dict(self.counts)
        self.notes.facts["skipped, and why"] = dict(self.skipped)
        if sum(self.counts.values()) % 50 == 0:
            self.notes.save()


def marked() -> list[str]:
    """Test files outside of the rooms that hold tests marked `gpu`."""
    unit = ROOT / "tests" / "unit"
    found = [path for path in sorted(unit.rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    return [str(path) for path in found if path.relative_to(unit).parts[0] not in ROOMS]


def run(notes: Notes, setting: Setting) -> None:
    os.chdir(ROOT)
    unit = ROOT / "tests" / "unit"
    files = [str(unit / name) for name in SHORT] if setting.short else [str(unit / name) for name in ROOMS] + marked()
    options = ["-q", "--tb=short", "--device", setting.device, "-o", "filterwarnings=default"]
    if not setting.short and importlib.util.find_spec("xdist"):
        workers = min(WORKERS, len(os.sched_getaffinity(0)))
        options += ["-p", "xdist", "--numprocesses", str(workers), "--dist", "loadscope"]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # what else is installed is not ours to judge
    collector = Collector(notes)
    status = pytest.main([*options, *files], plugins=[collector])
    collector.told()
    for name in ("passed", "skipped", "failed"):
        notes.figure(f"tests {name}", collector.counts[name])
    notes.check("pytest came to its end", int(status) in (0, 1), f"status {int(status)}, see the log")
    notes.check("tests ran", collector.counts["passed"] > 0)
