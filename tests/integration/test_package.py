"""What `pip install .` would put on a machine: all of it, and no more."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("saebench", "plugins", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names in a wheel built without a network from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
            )
        else:
            shutil.copy(ROOT / part, source / part)
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(source)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file).namelist()


def test_every_source_file_is_in_it(wheel: list[str]) -> None:
    for root in (ROOT / "saebench", ROOT / "plugins" / "saebench_plugins"):
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(root.parent).as_posix()
                assert name in wheel, (
                    f"{name} is missing from the wheel: add its pattern to tool.setuptools.package-data"
                )


def test_nothing_else_is_in_it(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"saebench", "saebench_plugins"}
    assert not [name for name in wheel if "example" in name or "/tests/" in name]


def test_torch_is_asked_for_as_a_range_so_that_an_installed_one_stays() -> None:
    import tomllib

    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [line for line in dependencies if line.startswith("torch")]
    assert torch == "torch>=2.11"
    assert not [line for line in dependencies if line.startswith(("torchvision", "torchaudio"))]
