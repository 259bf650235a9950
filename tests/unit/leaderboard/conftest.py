from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Records = dict[str, dict[str, Any]]


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"leaderboard_{name}", Path(__file__).parent / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generator() -> ModuleType:
    """The module that makes plausible records."""
    return _module("make_records")


@pytest.fixture(scope="session")
def stability() -> ModuleType:
    """The module that brings made groups up to date and adds groups over datasets."""
    return _module("make_stability")


@pytest.fixture
def records(generator: ModuleType) -> tuple[Records, Records]:
    """Fresh records and groups by path: tests may change them."""
    cells, groups = generator.make_records()
    return cells, groups


@pytest.fixture
def agreeing(generator: ModuleType, stability: ModuleType) -> tuple[Records, Records]:
    """Fresh records whose groups hold all that today's do."""
    cells, groups = generator.make_records()
    stability.add_stability(generator, cells, groups)
    return cells, groups


@pytest.fixture(scope="session")
def folder(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, groups as old versions wrote them. Do not write into it."""
    cells, groups = generator.make_records()
    written: Path = generator.write_folder(tmp_path_factory.mktemp("run"), cells, groups)
    return written


@pytest.fixture(scope="session")
def agreeing_folder(generator: ModuleType, stability: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, groups as they are written today. Do not write into it."""
    cells, groups = generator.make_records()
    stability.add_stability(generator, cells, groups)
    written: Path = generator.write_folder(tmp_path_factory.mktemp("agreeing"), cells, groups)
    return written
