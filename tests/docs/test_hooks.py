from __future__ import annotations

import inspect
import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest

from saebench import api
from saebench.api import hookspecs
from saebench.api.metrics import STREAMS
from saebench.api.sae import OPTIONAL_METHODS
from saebench.artifacts import iter_records
from saebench.jobs import run_suite
from saebench.testing import check_architecture

DOC = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text("utf-8")
EXAMPLES = dict(
    zip(("architecture", "dataset", "metric"), re.findall(r"```python\n(.*?)```", DOC, re.DOTALL), strict=True)
)

SUITE = """
schema: 1
name: theirs
models: [{id: docs-lm, hookpoints: [layers.2], context: 64}]
datasets:
  notes: {plugin: my-notes, folder: notes}
entries:
  - {name: mine, architecture: my-relu, dataset: notes, config: {d_sae: 64}}
train: {batch: 256}
evaluation: {tokens: 512, loss_tokens: 64, density_tokens: 512}
budget: {primary: tokens, tokens: 4_096}
metrics: [fvu, silent-tokens]
"""


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


def test_every_method_field_and_stream_is_documented() -> None:
    for name in OPTIONAL_METHODS:
        assert f"`{name}(" in DOC, name
    for spec in (api.ArchitectureSpec, api.DatasetSpec, api.CellMetricSpec, api.MetricInfo):
        for field in fields(spec):
            assert re.search(rf"`{field.name}\b", DOC), (spec.__name__, field.name)
    for stream in STREAMS:
        assert f"`{stream}`" in DOC, stream


@pytest.mark.parametrize(("name", "most"), [("architecture", 40), ("dataset", 25), ("metric", 25)])
def test_examples_are_short(name: str, most: int) -> None:
    assert len(EXAMPLES[name].splitlines()) <= most


def test_the_architecture_keeps_the_contract(tmp_path: Path) -> None:
    file = tmp_path / "my_relu.py"
    file.write_text(EXAMPLES["architecture"])
    (spec,) = runpy.run_path(str(file))["saebench_architectures"]()
    assert [check.message for check in check_architecture(spec, spec.config(d_sae=32)) if check.failed] == []


def test_a_suite_of_the_three_examples_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plugins = [Path(f"my_{name}.py") for name in EXAMPLES]
    for file, text in zip(plugins, EXAMPLES.values(), strict=True):
        file.write_text(text)
    Path("notes").mkdir()
    for number in range(60):
        words = " ".join(f"note {number} says that item {item * number} comes after item {item}" for item in range(30))
        Path("notes", f"{number}.md").write_text(words)
    Path("suite.yaml").write_text(SUITE)
    assert run_suite(Path("suite.yaml"), out=Path("run"), plugins=plugins).exit_status == 0
    ((_, record),) = iter_records(Path("run"))
    facts = record["facts"]
    assert facts["status"] == "ok", facts["error"]
    assert 0 < facts["metrics"]["fvu"]["value"] < 1
    assert 0 <= facts["metrics"]["silent-tokens"]["value"] < 0.5
