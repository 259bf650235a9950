"""Every built-in plugin folder explains itself: formula, source, and what is our reconstruction."""

from __future__ import annotations

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest

BUILT_IN = sorted(
    point.value for point in entry_points(group="saebench") if point.value.startswith("saebench_plugins.")
)


def test_all_built_ins_are_found() -> None:
    assert len(BUILT_IN) == 9


@pytest.mark.parametrize("module", BUILT_IN)
def test_readme(module: str) -> None:
    spec = find_spec(module.removesuffix(".plugin"))
    assert spec is not None
    assert spec.origin is not None
    text = (Path(spec.origin).parent / "README.md").read_text("utf-8").lower()
    assert "source" in text
    assert "reconstruction" in text
