from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode keeps test folders off the path


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small suite with its own random model and text."""
    from suites import small_suite

    return small_suite(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def finished(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one whole run of it."""
    from saebench.jobs import run_suite

    folder = tmp_path_factory.mktemp("runs") / "whole"
    result = run_suite(suite, out=folder)
    assert set(result.statuses.values()) == {"ok"}, result.statuses
    return folder


@pytest.fixture
def without_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this test write no pages: pages take most of a small run's time, and other tests read them."""
    monkeypatch.setattr("saebench.leaderboard.build", lambda *_folders, **_options: None)
