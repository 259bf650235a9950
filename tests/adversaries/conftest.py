"""A tiny suite with one contender that cheats, run as a user would run it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # importlib mode keeps test folders off the path; the plugins import `honest`

SUITE = """
schema: 1
name: adversaries
models:
  - {{id: {model}, hookpoints: [layers.1], context: 32}}
datasets:
  text: {{plugin: local, path: {text}}}
entries:
  - {{name: contender, architecture: {architecture}, dataset: text, config: {{d_sae: 64, k: 4}}}}
train: {{batch: 256}}
evaluation: {{tokens: 1_024, loss_tokens: 500, density_tokens: 1_024}}
budget: {budget}
seeds: {{init: {seeds}}}
metrics: [variance-explained, l0, values-per-token, dead-fraction, ce-spliced]
"""
TOKENS = "{primary: tokens, tokens: 2_048}"


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        folder: The run folder.
        statuses: By cell label.
        records: Of the cells, in the order of their init seeds.
        said: Every line that was printed.
    """

    folder: Path
    statuses: dict[str, str]
    records: list[dict[str, Any]]
    said: list[str]

    @property
    def facts(self) -> dict[str, Any]:
        """Of the first seed."""
        facts: dict[str, Any] = self.records[0]["facts"]
        return facts

    @property
    def error(self) -> str:
        """What the first seed's record says went wrong; empty where nothing did."""
        return (self.facts["error"] or {}).get("message", "")

    def value(self, metric: str) -> float:
        """Of the first seed."""
        found: float = self.facts["metrics"][metric]["value"]
        return found


class Attack(Protocol):
    def __call__(self, plugin: str, *, budget: str = ..., seeds: str = ..., **run: Any) -> Outcome: ...


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model and a made-up text."""
    from saebench.testing import make_model

    folder = tmp_path_factory.mktemp("adversaries")
    words = (
        "socket",
        "file",
        "tree",
        "path",
        "walk",
        "read",
        "write",
        "open",
        "close",
        "node",
        "edge",
        "graph",
        "list",
    )
    lines = (" ".join(words[(i * j + j * j) % len(words)] for j in range(1, 60)) + f" {i}" for i in range(300))
    (folder / "text.txt").write_text("\n\n".join(lines))
    return {"model": make_model(folder / "model", "llama"), "text": folder / "text.txt"}


@pytest.fixture
def attack(material: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attack:
    """`attack("x_in_side")` runs the suite with `plugins/x_in_side.py`, whose architecture has that name in hyphens.

    Options: `budget` and `seeds` as a suite has them; `suite`, another suite's text; others go to `run_suite`.
    """
    monkeypatch.setattr("saebench.leaderboard.build", lambda *_folders, **_options: None)

    def run(plugin: str, *, budget: str = TOKENS, seeds: str = "[0]", suite: str = SUITE, **more: Any) -> Outcome:
        from saebench.artifacts import iter_records
        from saebench.jobs import run_suite

        path, said = tmp_path / "suite.yaml", list[str]()
        path.write_text(suite.format(architecture=plugin.replace("_", "-"), budget=budget, seeds=seeds, **material))
        file = HERE / "plugins" / f"{plugin}.py"
        result = run_suite(path, out=tmp_path / plugin, plugins=[file], say=said.append, **more)
        found = [record for _, record in iter_records(tmp_path / plugin)]
        records = sorted(found, key=lambda record: record["facts"]["init_seed"])
        return Outcome(result.folder, result.statuses, records, said)

    return run
