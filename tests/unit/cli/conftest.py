from __future__ import annotations

import sys
from pathlib import Path

import pytest

for _room in ("host", "pair"):
    sys.path.insert(
        0, str(Path(__file__).parents[1] / _room)
    )  # foreign_folders, our_folders; importlib mode keeps test folders off the path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Null levels are kept below the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
