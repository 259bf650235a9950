"""An external package, installed into a fresh venv without a network, is trained and ranked like a built-in."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from suites import QUICK

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that sees this environment's packages; the example and a broken package are installed into it."""
    folder = tmp_path_factory.mktemp("external")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    python = folder / "venv" / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    lines = [*site.getsitepackages(), str(ROOT), str(ROOT / "plugins")]
    (Path(where) / "outer.pth").write_text(
        "\n".join(f"import site; site.addsitedir({line!r})" for line in lines) + "\n"
    )
    example = folder / "example"
    shutil.copytree(
        ROOT / "plugins" / "example-external",
        example,
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    broken = folder / "broken"
    (broken / "src" / "saebench_broken").mkdir(parents=True)
    (broken / "src" / "saebench_broken" / "__init__.py").write_text(
        "raise ImportError('this package is broken on purpose')\n"
    )
    (broken / "pyproject.toml").write_text(
        (example / "pyproject.toml")
        .read_text()
        .replace("saebench-example", "saebench-broken")
        .replace("saebench_example", "saebench_broken")
        .replace("example =", "broken =")
    )
    for package in (example, broken):
        command = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--no-build-isolation",
            "--disable-pip-version-check",
            str(package),
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)
    return python


def test_it_is_listed_with_its_version_and_the_broken_one_with_its_problem(fresh: Path) -> None:
    shown = json.loads(
        subprocess.run(
            [fresh, "-m", "saebench", "plugins", "--json"], capture_output=True, text=True, check=True
        ).stdout
    )
    (example,) = [row for row in shown["architectures"] if row["name"] == "example-relu"]
    assert (example["distribution"], example["distribution_version"]) == ("saebench-example", "0.1.0")
    (problem,) = shown["problems"]
    assert problem["distribution"] == "saebench-broken"
    assert "broken on purpose" in problem["message"]
    assert any(row["name"] == "topk" for row in shown["architectures"])


def test_it_is_trained_and_ranked(fresh: Path, tmp_path: Path) -> None:
    text = QUICK.split("entries:")[0] + (
        "entries:\n"
        "  - {name: theirs, architecture: example-relu, dataset: truth, config: {d_sae: 64}, sweep: {l1: [0.05]}}\n"
        "  - {name: topk, architecture: topk, dataset: truth, config: {d_sae: 64, k: 8}}\n"
        "train: {batch: 256}\n"
        "evaluation: {tokens: 1_000, density_tokens: 1_000}\n"
        "budget: {primary: tokens, tokens: 4_000}\n"
        "seeds: {init: [0, 1]}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    result = subprocess.run(
        [fresh, "-m", "saebench", "run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "theirs" in result.stdout
    data = (tmp_path / "run" / "leaderboard" / "data.json").read_text()
    assert "saebench-example" in data
    assert "theirs" in (tmp_path / "run" / "leaderboard" / "README.md").read_text()
    assert sys.executable != str(fresh)


def test_an_entry_that_starts_it_from_another_is_refused_by_plan(fresh: Path, tmp_path: Path) -> None:
    text = QUICK.split("entries:")[0] + (
        "entries:\n"
        "  - {name: one, architecture: example-relu, dataset: truth, config: {d_sae: 64}}\n"
        "  - {name: two, architecture: example-relu, dataset: truth, init_from: one}\n"
        "budget: {primary: tokens, tokens: 4_000}\n"
    )
    (tmp_path / "s.yaml").write_text(text)
    result = subprocess.run(
        [fresh, "-m", "saebench", "plan", str(tmp_path / "s.yaml")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "architecture 'example-relu' always starts fresh. Leave `init_from` out." in result.stderr
