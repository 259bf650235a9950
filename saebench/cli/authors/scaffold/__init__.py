"""Plugin packages to begin with: the files of each kind are the templates beside this file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from saebench.api.errors import SuiteError
from saebench.artifacts.atomic import write_text

KINDS = ("architecture", "dataset", "metric", "observer")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SHARED = {"pyproject.toml": "pyproject.j2", ".github/workflows/test.yml": "workflow.j2"}
_FILES = {
    "architecture": {"src/{module}/model.py": "architecture_model.j2", "suite.yaml": "architecture_suite.j2"},
    "dataset": {"src/{module}/example.txt": "dataset_lines.j2"},
    "metric": {},
    "observer": {},
}


def write_package(kind: str, name: str, folder: Path) -> Iterator[Path]:
    """Writes every file of a package; gives their paths.

    Raises:
        SuiteError: The name is none, or the folder has something in it.
    """
    if not _NAME.fullmatch(name):
        raise SuiteError(f"'{name}' is no name of a plugin. Use lower-case letters, digits and hyphens: my-sae.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SuiteError(f"{folder}: has something in it already. Choose another --folder.")
    words = {
        "name": name,
        "module": f"saebench_{name.replace('-', '_')}",
        "kind": kind,
        "class": "".join(word.capitalize() for word in name.split("-")),
    }
    paths = {
        **_SHARED,
        "README.md": f"{kind}_readme.j2",
        "src/{module}/__init__.py": f"{kind}.j2",
        "tests/test_contract.py": f"{kind}_test.j2",
        **_FILES[kind],
    }
    for path, template in paths.items():
        text = files(__name__).joinpath(template).read_text("utf-8")
        for word, value in words.items():
            text = text.replace(f"@{word}@", value)
        target = folder / path.format(**words)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, text)
        yield target
