"""The rules of docs/architecture.md: small folders, short files, no import circles, ordinary words."""

from __future__ import annotations

import ast
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "saebench").rglob("*.py"))
}
MOST_FILES, MOST_LINES = 12, 300
RETIRED = re.compile(
    r"(?i:\b(arms?|(?<!org/)drafts?|foresight|narrators?|narration|hurts nobody)\b|_(arms?|drafts?)\b)"
    r"|(Arm|Draft)(?=[A-Z])"
)


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


def test_no_folder_has_more_files_than_one_can_keep_in_mind() -> None:
    paths = [*MODULES.values(), *(ROOT / "plugins" / "saebench_plugins").rglob("*.py")]
    files = Counter(path.parent.relative_to(ROOT).as_posix() for path in paths)
    assert not {folder: n for folder, n in files.items() if n > MOST_FILES}


def test_no_file_is_longer_than_one_reads() -> None:
    lines = {module: len(path.read_text("utf-8").splitlines()) for module, path in MODULES.items()}
    assert not {module: n for module, n in lines.items() if n > MOST_LINES}


def test_no_modules_import_each_other() -> None:
    try:
        TopologicalSorter({module: imports_of(module) for module in MODULES}).prepare()
    except CycleError as circle:
        raise AssertionError(" -> ".join(circle.args[1])) from None


def test_no_folders_beside_each_other_import_each_other() -> None:
    """`nn` and `lm`, `leaderboard.pages` and `leaderboard.tables`: one of the two is below the other."""
    arrows = set()
    for module in MODULES:
        for other in imports_of(module):
            ours, theirs = module.split("."), other.split(".")
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
            if at is not None:
                arrows.add((".".join(ours[: at + 1]), ".".join(theirs[: at + 1])))
    assert not {pair for pair in arrows if pair[::-1] in arrows}


def test_retired_words_do_not_come_back() -> None:
    pages = [*MODULES.values(), *(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in pages
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if RETIRED.search(line)
    ]
    assert found == []
