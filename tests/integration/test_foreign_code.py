"""What plugins raise, however they raise it, ends what is theirs and nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from saebench.api import SuiteError
from saebench.artifacts import iter_groups, iter_records

PLUGIN = """
import os, sys
from dataclasses import dataclass
import torch
from saebench.api import (
    ActivationBatch, CellMetricSpec, DatasetSpec, MetricInfo, Site, SuiteError, hookimpl,
)

LEAVES = os.environ.get("LEAVES", "")

class Rude(Exception):
    def __str__(self):
        raise RuntimeError("no text")

def leave(place):
    if place == LEAVES:
        sys.exit(f"leaves in {place}")

@dataclass(frozen=True)
class Options:
    d: int = 8

class Vectors:
    dictionary = None
    def __init__(self, options, context):
        leave("open")
        self.d_in = options.d
        if LEAVES == "unusable":
            raise SuiteError("the vectors are of another year.")
        if LEAVES == "model":
            context.model
    def n_tokens(self, split):
        return None
    def batches(self, split, n_tokens, batch, seed):
        draws = torch.Generator().manual_seed(seed + (split == "train"))
        for start in range(0, n_tokens, batch):
            if start:
                leave("batches")
            x = torch.randn(min(batch, n_tokens - start), self.d_in, generator=draws)
            yield ActivationBatch(x, x)
        if split == "held-out":
            leave("held-out")
    def manifest(self):
        leave("manifest")
        return {}

class Metric:
    def __init__(self, context):
        leave("make")
    def update(self, stream, scored):
        leave("update")
    def compute(self):
        leave("compute")
        raise Rude

@dataclass(frozen=True)
class Config:
    d_sae: int = 16

@hookimpl
def saebench_datasets():
    return [DatasetSpec("rude-vectors", "1", Options, "activations", Vectors, site=lambda o: Site(o.d, o.d, "v", "v"))]

@hookimpl
def saebench_metrics():
    info = MetricInfo("rude", "ratio", "lower", "cost", "never there")
    return [CellMetricSpec("rude", "1", (info,), Metric, ("eval",), ("codes",))]

@hookimpl
def saebench_plan_ready(plan):
    leave("observer")

@hookimpl
def saebench_cell_started(cell):
    leave("observer")

@hookimpl
def saebench_train_progress(cell_id, tokens, allotted, fvu, l0):
    leave("observer")

@hookimpl
def saebench_cell_finished(record):
    leave("observer")

@hookimpl
def saebench_leaderboard_written(folder):
    leave("observer")
"""

SUITE = """
schema: 1
name: rude
datasets:
  theirs: {plugin: rude-vectors}
  ours: {plugin: synthetic, d_in: 8, n_features: 16}
entries:
  - {name: theirs, architecture: topk, dataset: theirs, config: {d_sae: 16, k: 2}}
  - {name: ours, architecture: topk, dataset: ours, config: {d_sae: 16, k: 2}}
train: {batch: 256}
evaluation: {tokens: 300, loss_tokens: 16, density_tokens: 300}
budget: {primary: tokens, tokens: 5_000}
metrics: [fvu, rude]
"""


def run(folder: Path, leaves: str, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> tuple[Any, dict[str, Any]]:
    from saebench.jobs import run_suite

    (folder / "suite.yaml").write_text(SUITE)
    plugin = folder / f"rude_{leaves.replace('-', '_')}.py"
    plugin.write_text(PLUGIN)
    monkeypatch.setenv("LEAVES", leaves)
    result = run_suite(folder / "suite.yaml", out=folder / "run", plugins=[plugin], say=said.append)
    for name in [name for name in sys.modules if name.startswith(f"saebench_local_{plugin.stem}")]:
        del sys.modules[name]
    return result, {record["facts"]["entry"]: record for _, record in iter_records(folder / "run")}


@pytest.mark.parametrize("place", ["open", "batches", "held-out", "manifest"])
@pytest.mark.usefixtures("without_pages")
def test_a_dataset_that_calls_sys_exit_fails_its_own_cells(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, records = run(tmp_path, place, monkeypatch, [])
    assert result.exit_status == 4
    assert records["theirs"]["facts"]["status"] == "failed"
    error = records["theirs"]["facts"]["error"]
    assert error["type"] == "SystemExit"
    # the plugin's own file and line, without folders
    assert re.fullmatch(rf"leaves in {place} \(rude_\w+\.py, line \d+\)", error["message"])
    assert records["ours"]["facts"]["status"] == "ok"


@pytest.mark.parametrize("place", ["make", "update", "compute", "observer", "nowhere"])
@pytest.mark.usefixtures("without_pages")
def test_a_metric_or_an_observer_that_calls_sys_exit_fails_no_cell(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    result, records = run(tmp_path, place, monkeypatch, said)
    assert result.exit_status == 0
    left = f"SystemExit: leaves in {place}"
    unprintable = "Rude (its text cannot be shown: RuntimeError)"
    for record in records.values():
        assert record["facts"]["metrics"]["fvu"]["value"] is not None
        reason = record["facts"]["metrics"]["rude"]["reason"]
        assert reason == (left if place in ("make", "update", "compute") else unprintable)
        errors = record["measured"]["observer_errors"]
        assert bool(errors) == (place == "observer")
        assert all(error.endswith(left) for error in errors)
        if place == "observer":
            hooks = ("saebench_cell_started", "saebench_train_progress")
            assert errors == [f"file rude_observer.py:rude_observer: {hook} raised {left}" for hook in hooks]
    assert sum(line.endswith(left) for line in said) == 4 * (place == "observer")  # plan, two cells, leaderboard


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("unusable", "the vectors are of another year."),
        ("model", "asks for a language model and does not say so. Set `uses_model=True` in its DatasetSpec."),
    ],
)
@pytest.mark.usefixtures("without_pages")
def test_data_that_cannot_be_had_fails_its_own_cells(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, records = run(tmp_path, place, monkeypatch, [])
    assert result.exit_status == 4
    assert records["theirs"]["facts"]["status"] == "failed"
    assert records["theirs"]["facts"]["error"]["message"].endswith(message)
    assert records["ours"]["facts"]["status"] == "ok"


def test_where_no_cell_has_data_the_suite_is_refused_and_nothing_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = "\n".join(line for line in SUITE.splitlines() if "ours" not in line)
    monkeypatch.setitem(globals(), "SUITE", alone)
    with pytest.raises(SuiteError, match="the vectors are of another year"):
        run(tmp_path, "unusable", monkeypatch, [])
    assert not list(iter_records(tmp_path / "run"))


@pytest.mark.usefixtures("without_pages")
def test_a_refused_entry_is_named_and_the_other_is_finished(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from saebench.cli import cli
    from saebench.execute.status import read_status
    from saebench.jobs import run_suite

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"story number {n}" for n in range(50)))
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        SUITE.replace("plugin: rude-vectors", f"plugin: local, path: {text}").replace("[fvu, rude]", "[fvu]")
    )
    reason = "'theirs' is text and needs a language model, but the suite has none. Add `models:`."
    planned = CliRunner().invoke(cli, ["plan", str(suite), "--json"], standalone_mode=False)
    assert planned.return_value == 2
    assert [refused["entry"] for refused in json.loads(planned.stdout)["refused"]] == ["theirs"]
    assert f"{suite}:8 entries[0].dataset: {reason}" in planned.stderr

    said: list[str] = []
    result = run_suite(suite, out=tmp_path / "run", say=said.append)
    assert result.exit_status == 4
    assert set(result.statuses.values()) == {"ok"}
    assert [line for line in said if line.startswith("refused: ") and line.endswith(reason)]
    assert read_status(tmp_path / "run").refused == result.refused
    assert run_suite(suite, out=tmp_path / "run", only="ours").exit_status == 0


GROUP_PLUGIN = """
from saebench.api import GroupMetricSpec, MetricInfo, MetricResult, MetricValue, hookimpl

ID = MetricInfo("moody", "ratio", "lower", "stability", "raises at one point")

class Moody:
    def measure(self, members):
        if MOOD and members[0].facts["point"] == "k2":
            raise RuntimeError("not today")
        return MetricResult({"moody": MetricValue.of(ID, 0.5, len(members))})

@hookimpl
def saebench_metrics():
    return [GroupMetricSpec("moody", "1", (ID,), Moody)]
"""

GROUP_SUITE = """
schema: 1
name: moody
datasets:
  ours: {plugin: synthetic, d_in: 8, n_features: 16}
entries:
  - {name: topk, architecture: topk, dataset: ours, config: {d_sae: 16}, sweep: {k: [2, 3]}}
train: {batch: 256}
evaluation: {tokens: 300, loss_tokens: 16, density_tokens: 300}
budget: {primary: tokens, tokens: 1_000}
seeds: {init: [0, 1]}
metrics: [fvu, sfr, moody]
"""


def test_a_group_metric_that_raises_fails_its_group_and_is_tried_again(tmp_path: Path) -> None:
    from saebench.jobs import run_suite

    (tmp_path / "suite.yaml").write_text(GROUP_SUITE)

    def run_with(mood: bool) -> tuple[Any, list[str], dict[str, Any]]:
        plugin = tmp_path / f"moody{mood}.py"
        plugin.write_text(f"MOOD = {mood}\n{GROUP_PLUGIN}")
        said: list[str] = []
        result = run_suite(tmp_path / "suite.yaml", out=tmp_path / "run", plugins=[plugin], say=said.append)
        groups = {record["facts"]["point"]: record["facts"] for _, record in iter_groups(tmp_path / "run")}
        return result, said, groups

    result, said, groups = run_with(True)
    reason = "metric 'moody': RuntimeError: not today"
    assert result.exit_status == 4
    assert set(result.statuses.values()) == {"ok"}
    assert f"group topk k2: failed: {reason}" in said
    assert (groups["k2"]["status"], groups["k3"]["status"]) == ("failed", "ok")
    assert groups["k2"]["error"]["message"] == reason
    assert groups["k2"]["metrics"]["moody"]["reason"] == "RuntimeError: not today"
    assert groups["k2"]["metrics"]["sfr"]["value"] is not None
    assert reason in (tmp_path / "run" / "leaderboard" / "README.md").read_text().replace("\\", "")
    assert f"group topk k2: failed: {reason}" in result.table

    mended, _, groups = run_with(False)
    assert mended.exit_status == 0
    assert groups["k2"]["status"] == "ok"
    assert groups["k2"]["metrics"]["moody"]["value"] == 0.5
    assert "not today" not in (tmp_path / "run" / "leaderboard" / "README.md").read_text()


ASTRAY = """
from dataclasses import replace
from saebench.api import hookimpl
from saebench.api.specs import resolve
from saebench_plugins.topk.plugin import saebench_architectures as topks

def build(config, **more):
    made = resolve(topks()[0].build)(config, **more)

    class Astray(type(made)):
        def decode(self, codes):
            x_hat = super().decode(codes)
            return x_hat if self.training else 20 * x_hat

    made.__class__ = Astray
    return made

@hookimpl
def saebench_architectures():
    return [replace(topks()[0], name="astray", build=build)]
"""


@pytest.mark.usefixtures("without_pages")
def test_a_cell_that_diverges_on_held_out_data_has_no_score_and_no_children(tmp_path: Path) -> None:
    from saebench.jobs import run_suite

    (tmp_path / "astray.py").write_text(ASTRAY)
    text = SUITE.replace("  theirs: {plugin: rude-vectors}\n", "").replace("[fvu, rude]", "[fvu]")
    text = text.replace(
        "{name: theirs, architecture: topk, dataset: theirs", "{name: bad, architecture: astray, dataset: ours"
    )
    text = text.replace("train:", "  - {name: child, architecture: ssae, dataset: ours, init_from: bad}\ntrain:")
    (tmp_path / "suite.yaml").write_text(text)
    result = run_suite(tmp_path / "suite.yaml", out=tmp_path / "run", plugins=[tmp_path / "astray.py"])
    facts = {record["facts"]["entry"]: record["facts"] for _, record in iter_records(tmp_path / "run")}
    assert result.exit_status == 4
    assert {entry: found["status"] for entry, found in facts.items()} == {
        "bad": "diverged",
        "ours": "ok",
        "child": "skipped",
        "bad-continued": "skipped",
    }
    assert "the FVU on held-out data is" in facts["bad"]["error"]["message"]
    assert facts["bad"]["metrics"] == {}
    assert facts["bad"]["training"]["trajectory"][-1]["fvu"] < 1  # what is known of its training is kept
    assert facts["child"]["error"]["message"].startswith("its parent bad default s0 diverged.")


@pytest.mark.usefixtures("without_pages")
def test_a_manifest_that_no_record_can_hold_fails_its_own_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules[__name__], "PLUGIN", PLUGIN.replace("return {}", r'return {"source": "half \ud800"}')
    )
    result, records = run(tmp_path, "nowhere", monkeypatch, [])
    assert result.exit_status == 4
    assert records["theirs"]["facts"]["status"] == "failed"
    assert "its record cannot be kept (half a character" in records["theirs"]["facts"]["error"]["message"]
    assert records["ours"]["facts"]["status"] == "ok"
