from __future__ import annotations

import inspect
import re
from pathlib import Path

from saebench.api import hookspecs

DOC = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text("utf-8")


def documented() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `(saebench_\w+)` \|([^|]*)\|", DOC, re.MULTILINE)
    return {name: re.findall(r"`(\w+)`", arguments) for name, arguments in rows}


def test_the_table_and_the_hookspecs_are_equal() -> None:
    specs = {
        name: list(inspect.signature(f).parameters)
        for name, f in vars(hookspecs).items()
        if name.startswith("saebench_")
    }
    assert documented() == specs


def test_every_hook_has_a_docstring() -> None:
    assert all(inspect.getdoc(getattr(hookspecs, name)) for name in documented())
