"""The rules of docs/architecture.md that a reader relies on: no import circles."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "saebench").rglob("*.py"))
}


def imports_of(module: str) -> set[str]:
    """Modules of saebench that it imports, inside functions and for types too."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package.split(".")[: 1 - node.level or None], *filter(None, [node.module])])
            found |= {name if (name := f"{base}.{alias.name}") in MODULES else base for alias in node.names}
    return (found & MODULES.keys()) - {module}


def test_no_modules_import_each_other() -> None:
    try:
        TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()
    except CycleError as circle:
        raise AssertionError(" -> ".join(circle.args[1])) from None
