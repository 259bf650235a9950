"""The `tune` block of an entry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from saebench.api import SuiteError
from saebench.config import Suite, json_schema, load_suite

SUITE = """\
schema: 1
name: s
datasets: {truth: {plugin: synthetic}}
budget: {tokens: 1_000}
entries:
"""
ENTRY = "  - {name: a, architecture: topk, dataset: truth, config: {d_sae: 64}, "


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: str) -> Suite:
    monkeypatch.chdir(folder)
    Path("s.yaml").write_text(SUITE + entries)
    return load_suite("s.yaml")


def problems(folder: Path, monkeypatch: pytest.MonkeyPatch, entries: str) -> list[str]:
    with pytest.raises(SuiteError) as caught:
        load(folder, monkeypatch, entries)
    return str(caught.value).splitlines()


def test_a_search_is_a_metric_and_lists_of_values(tmp_path, monkeypatch):
    suite = load(tmp_path, monkeypatch, ENTRY + "tune: {metric: mse, k: [4, 8], lr: [auto, 1e-3]}}\n")
    tune = suite.config.entries[0].tune
    assert tune is not None
    assert (tune.metric, dict(tune.grid)) == ("mse", {"k": (4, 8), "lr": ("auto", 1e-3)})
    plain = load(tmp_path, monkeypatch, ENTRY + "tune: {k: [4, 8]}}\n")
    assert plain.config.entries[0].tune.metric == "fvu"
    assert plain.digest != load(tmp_path, monkeypatch, ENTRY + "tune: {k: [4, 9]}}\n").digest


@pytest.mark.parametrize(
    ("block", "line"),
    [
        ("tune: {k: 4}", ".tune.k: got 4 but a list is expected. Write [4]."),
        ("tune: {k: []}", ".tune.k: is empty; at least one is expected."),
        ("tune: [4, 8]", ".tune: got [4, 8] but a mapping (key: value) is expected."),
        ("tune: {k: [4, 4, 8]}", ".tune.k[1]: value 4 is given twice. Keep one."),
        ("tune: {k: [4]}", ".tune: a search needs two candidates or more."),
        ("tune: {metric: fvu}", ".tune: a search needs two candidates or more."),
        ("tune: {d_sae: [32, 64]}", ".tune.d_sae: is in config too. Keep it in one of the two."),
        ("sweep: {k: [4, 8]}, tune: {k: [4, 8]}", ".tune.k: is in sweep too. Keep it in one of the two."),
        ("train: {lr: 0.1}, tune: {lr: [1, 2]}", ".tune.lr: is in train too. Keep it in one of the two."),
        ("tune: {lr: [1, fast]}", ".tune.lr[1]: got 'fast' but a number over 0 or auto is expected."),
        ("tune: {lr: [1, 0]}", ".tune.lr[1]: got 0 but a number over 0 or auto is expected."),
        ("tune: {lr: [2, true]}", ".tune.lr[1]: got true but a number over 0 or auto is expected."),
    ],
)
def test_what_is_no_search(tmp_path, monkeypatch, block, line):
    found = problems(tmp_path, monkeypatch, ENTRY + block + "}\n")
    assert len(found) == 1
    assert found[0].startswith("s.yaml:6 entries[0]" + line), found


def test_a_tuned_entry_has_no_children(tmp_path, monkeypatch):
    child = "  - {name: b, architecture: ssae, dataset: truth, init_from: a}\n"
    (line,) = problems(tmp_path, monkeypatch, ENTRY + "tune: {k: [4, 8]}}\n" + child)
    assert line.startswith("s.yaml:7 entries[1].init_from: 'a' is tuned:")
    assert "write the values it finds into the config of an entry without `tune`" in line


def test_the_json_schema_lists_values_of_every_config_key_and_learning_rates():
    @dataclass(frozen=True)
    class Config:
        d_sae: int
        k: int = 4

    whole = json_schema()["$defs"]["TuneConfig"]
    assert whole["additionalProperties"] == {"type": "array", "items": {}, "minItems": 1}
    definitions = json_schema({"topk": Config})["$defs"]
    rule = definitions["EntryConfig"]["allOf"][0]["then"]["properties"]["tune"]
    assert set(rule["properties"]) == {"metric", "d_sae", "k", "lr"}
    assert rule["additionalProperties"] is False
    assert rule["properties"]["k"] == {"type": "array", "minItems": 1, "items": {"type": "integer"}}
    assert rule["properties"]["lr"]["items"]["anyOf"]
