"""Every snippet of the plugin guide runs, keeps its contract, and makes a ranked row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from saebench.artifacts import iter_records
from saebench.cli import cli
from saebench.cli.authors.scaffold import KINDS
from saebench.host import load_catalog
from saebench.jobs import run_suite
from saebench.testing.plugin import check_plugin

GUIDE = (Path(__file__).parents[2] / "docs" / "plugin-guide.md").read_text("utf-8")
NAMES = ("architecture", "dataset", "metric", "observer")
SNIPPETS = dict(zip(NAMES, re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL), strict=True))
(SUITE,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.chdir(tmp_path)
    paths = [tmp_path / f"guide_{name}.py" for name in NAMES]
    for path, text in zip(paths, SNIPPETS.values(), strict=True):
        path.write_text(text)
    return paths


@pytest.mark.parametrize("name", ["guide-topk", "guide-pairs", "guide-norm-ratio", "guide_observer"])
def test_snippets_keep_their_contract(name: str, files: list[Path]) -> None:
    (checked,) = check_plugin(name, load_catalog(files), {})
    assert [f"{check.name}: {check.message}" for check in checked.checks if check.failed] == []


def test_the_suite_of_all_four_runs_and_ranks(files: list[Path]) -> None:
    Path("suite.yaml").write_text(SUITE)
    assert run_suite(Path("suite.yaml"), out=Path("run"), plugins=files).exit_status == 0
    records = [record["facts"] for _, record in iter_records(Path("run"))]
    assert {facts["status"] for facts in records} == {"ok"}
    assert all(0 < facts["metrics"]["guide-norm-ratio"]["value"] < 2 for facts in records)
    assert len(Path("cells.jsonl").read_text().splitlines()) == len(records)
    assert "mine" in json.dumps(json.loads(Path("run/leaderboard/data.json").read_text()))


def test_its_commands_exist() -> None:
    blocks = re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL)
    named = set(re.findall(r"^saebench (\w+)", "\n".join(blocks), re.MULTILINE))
    assert named == {"new", "check", "run"} <= set(cli.list_commands(None))  # type: ignore[arg-type]
    assert "|".join(KINDS[1:]) in GUIDE
