from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Records = dict[str, dict[str, Any]]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("leaderboard_make_records", Path(__file__).parent / "make_records.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """The module that makes plausible records."""
    return _generator()


@pytest.fixture
def records(generator: ModuleType) -> tuple[Records, Records]:
    """Fresh records and groups by path: tests may change them."""
    cells, groups = generator.make_records()
    return cells, groups


@pytest.fixture(scope="session")
def folder(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them. Do not write into it."""
    cells, groups = generator.make_records()
    written: Path = generator.write_folder(tmp_path_factory.mktemp("run"), cells, groups)
    return written
