"""What the pages call by name exists: files, folders and dotted modules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "benchmarks").rglob("*.md"),
    *(ROOT / "plugins").rglob("*.md"),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
FILES = [
    path.as_posix()
    for folder in ("saebench", "plugins", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
]


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_paths_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    whole = set(re.findall(r"(?<![\w/.-])(?:tests|benchmarks|saebench|plugins)/[\w/.-]*\.(?:py|md|yaml)\b", text))
    ends = set(re.findall(r"`([\w/]+\.py)`", text)) - whole
    missing = {path for path in whole if not (ROOT / path).exists()}
    missing |= {end for end in ends if not any(path.endswith(f"/{end}") for path in FILES)}
    missing |= {
        folder
        for folder in re.findall(r"pytest (tests/[\w/]+)", text)
        if not (ROOT / folder).exists() and f"{folder}.py" not in whole
    }
    assert not missing


@pytest.mark.parametrize("page", sorted(PAGES), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_dotted_names_are_modules_or_names_in_them(page: Path) -> None:
    missing = set()
    for name in re.findall(r"\bsaebench(?:\.\w+)+", page.read_text("utf-8")):
        *modules, last = name.split(".")
        module = ROOT.joinpath(*modules)
        source = module.with_suffix(".py") if module.with_suffix(".py").exists() else module / "__init__.py"
        inside = module.joinpath(last)
        if inside.exists() or inside.with_suffix(".py").exists():
            continue
        if not source.exists() or not re.search(rf"\b{last}\b", source.read_text("utf-8")):
            missing.add(name)
    assert not missing


def test_the_tree_in_the_architecture_is_the_real_one() -> None:
    lines = []
    for init in sorted((ROOT / "saebench").rglob("__init__.py"), key=lambda path: path.parent.as_posix()):
        folder = init.parent.relative_to(ROOT)
        name = f"{'  ' * (len(folder.parts) - 1)}{folder.name}/"
        stems = sorted(path.stem for path in init.parent.glob("*.py") if path.stem not in ("__init__", "__main__"))
        lines.append(f"{name:<20} {' '.join(stems)}".rstrip())
    assert "```\n" + "\n".join(lines) + "\n```" in (ROOT / "docs" / "architecture.md").read_text("utf-8")
