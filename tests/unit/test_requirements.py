"""The lock, the bounds in pyproject.toml and the lowest versions say the same."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from saebench_plugins.core_datasets.docs.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]


def requirements(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [found for line in lines if (found := Requirement(line)).name != project["name"]]


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    pairs = [line.split("==") for line in lock_lines()]
    return {canonicalize_name(name): version for name, version in pairs}


def test_the_lock_is_exact_versions_and_nothing_else() -> None:
    lines = lock_lines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    names = [canonicalize_name(line.split("==")[0]) for line in lines]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton", "saebench"))]


def test_the_lock_satisfies_every_bound(locked: dict[str, str]) -> None:
    """Fails where a bound or a dependency changed and `make lock` was not run."""
    required = requirements("matching", "test", "dev")
    assert len(required) > 25
    assert not [
        str(one)
        for one in required
        if not one.specifier.contains(locked.get(canonicalize_name(one.name), "0"), prereleases=True)
    ]


def test_the_build_backend_is_locked(locked: dict[str, str]) -> None:
    """`make setup` builds without isolation, so that nothing outside the lock is fetched."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert [one.name for one in map(Requirement, needed)] == ["setuptools"]
    assert Requirement(needed[0]).specifier.contains(locked["setuptools"])


def test_the_docs_corpus_is_made_of_locked_packages(locked: dict[str, str]) -> None:
    assert not [source.name for source in CATALOGUE if canonicalize_name(source.name) not in locked]


def test_the_lowest_versions_are_the_bounds() -> None:
    """Every requirement of the package and its tests has a lower bound that is a version."""
    script = ROOT / ".ci" / "lowest.py"
    answer = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout
    lowest = {one.name: one for one in map(Requirement, answer.splitlines())}
    required = requirements("test")
    assert list(lowest) == [one.name for one in required]
    for one in required:
        ((operator, version),) = [(exact.operator, exact.version) for exact in lowest[one.name].specifier]
        assert operator == "=="
        assert one.specifier.contains(version)
        assert f">={version}" in {str(part) for part in one.specifier}
