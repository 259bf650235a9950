"""A search from suite file to leaderboard, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from suites import text_file

from saebench.activations.sources.validation_split import part_of
from saebench.artifacts import iter_groups, iter_records
from saebench.jobs import run_suite
from saebench.leaderboard import build
from saebench.testing import make_model

SUITE = """
schema: 1
name: searched
models:
  - {{id: {model}, hookpoints: [layers.1], context: 16}}
datasets:
  mine: {{plugin: local, path: {text}}}
  truth: {{plugin: synthetic, d_in: 16, n_features: 32}}
entries:
  - {{name: plain, architecture: topk, dataset: mine, config: {{d_sae: 32, k: 4}}}}
  - {{name: tuned, architecture: topk, dataset: mine, config: {{d_sae: 32, k: 4}}, tune: {{lr: [auto, 0.00001, 1e30]}}}}
  - name: truth
    architecture: topk
    dataset: truth
    config: {{d_sae: 32}}
    tune: {{metric: variance-explained, k: [2, 8]}}
train: {{batch: 128}}
metrics: [fvu, variance-explained, l0, sfr]
evaluation: {{tokens: 600, loss_tokens: 100, density_tokens: 600}}
budget: {{primary: tokens, tokens: 2_000}}
seeds: {{init: [0, 1]}}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """(suite file, run folder, result)."""
    home = tmp_path_factory.mktemp("tune")
    make_model(home / "model", "llama")
    text_file(home / "text.txt", documents=300)
    suite = home / "searched.yaml"
    suite.write_text(SUITE.format(model=home / "model", text=home / "text.txt"))
    return suite, home / "run", run_suite(suite, out=home / "run")


def by_entry(folder: Path, entry: str) -> list[dict[str, Any]]:
    return [record for _, record in iter_records(folder) if record["facts"]["entry"] == entry]


def test_candidates_divide_the_share_and_are_judged_on_validation_data(searched: tuple[Path, Path, Any]) -> None:
    _, run, _ = searched
    tuned = by_entry(run, "tuned")
    assert len(tuned) == 6
    share = sum({r["facts"]["point"]: r["facts"]["spent"]["train"]["tokens"] for r in tuned}.values())
    assert share <= 2_000
    assert {r["facts"]["budget"]["tokens"] for r in tuned} == {640}
    plain = by_entry(run, "plain")[0]["facts"]
    assert "tune" not in plain
    for record in tuned:
        facts = record["facts"]
        assert facts["evaluation"] == {} or facts["evaluation"]["part"] == plain["evaluation"]["part"] == "test"
        if facts["status"] != "ok":
            assert facts["tune"]["validation"] is None
            continue
        validation = facts["tune"]["validation"]
        assert (validation["metric"], validation["on"], validation["reason"]) == ("fvu", "mine", None)
        assert 0 < validation["n"] <= 600
        assert validation["value"] != facts["metrics"]["fvu"]["value"]
        assert validation["content"] != facts["evaluation"]["datasets"][0]["content"]
        assert facts["evaluation"]["datasets"] == plain["evaluation"]["datasets"]


def test_no_document_stands_on_both_sides(searched: tuple[Path, Path, Any]) -> None:
    _, run, _ = searched
    parts: dict[str, set[str]] = {"validation": set(), "test": set()}
    for manifest in (run / "activations").glob("*/manifest.json"):
        key = json.loads(manifest.read_text())["key"]
        if key.get("split") == "held-out":
            parts[key["part"]] |= set((manifest.parent / "documents.txt").read_text().split())
    assert len(parts["validation"]) > 5
    assert len(parts["test"]) > 15
    assert not parts["validation"] & parts["test"]
    assert all(part_of(code) == part for part, codes in parts.items() for code in codes)


def test_the_leaderboard_shows_the_winner_and_lists_the_rest(searched: tuple[Path, Path, Any]) -> None:
    _, run, result = searched
    data = json.loads((run / "leaderboard" / "data.json").read_text())
    sites = {site["title"].split(",")[0].split(" ")[0]: site for site in data["suites"][0]["sites"]}
    model, truth = sites["model"], sites["truth"]
    rows = {row["entry"]: row for row in model["rows"]}
    assert [row["label"] for row in model["rows"] if row["entry"] == "tuned"] == ["tuned lr_auto"]
    (search,) = model["searches"]
    listed = {item["label"]: item for item in search["candidates"]}
    assert set(listed) == {"lr_auto", "lr1e-05", "lr1e+30"}
    assert listed["lr_auto"]["won"]
    own = [r["facts"] for r in by_entry(run, "tuned") if r["facts"]["point"] == "lr_auto"]
    mean = sum(facts["tune"]["validation"]["value"] for facts in own) / 2
    assert listed["lr_auto"]["validation"]["value"] == pytest.approx(mean, rel=1e-9)
    assert rows["tuned"]["tune"]["text"] == "best of 3 by validation fvu"
    assert search["cost"]["tokens"] <= 2_000
    assert [row["label"] for row in truth["rows"]] == ["truth k8"]
    assert truth["searches"][0]["metric"] == "variance-explained"
    groups = {f"{g['facts']['entry']} {g['facts']['point']}" for _, g in iter_groups(run)}
    assert {"tuned lr_auto", "tuned lr1e-05", "truth k2", "truth k8"} <= groups
    assert "tuned lr_auto: best of 3 by validation fvu" in result.table


def test_a_candidate_that_diverged_is_listed_and_cannot_win(searched: tuple[Path, Path, Any]) -> None:
    _, run, result = searched
    lost = [r["facts"] for r in by_entry(run, "tuned") if r["facts"]["point"] == "lr1e+30"]
    assert {facts["status"] for facts in lost} == {"diverged"}
    assert result.exit_status == 4
    data = json.loads((run / "leaderboard" / "data.json").read_text())
    (search,) = next(site for site in data["suites"][0]["sites"] if site["model"])["searches"]
    item = next(item for item in search["candidates"] if item["label"] == "lr1e+30")
    assert (item["won"], item["row"], item["validation"]["value"]) == (False, None, None)
    assert "seed 0 diverged" in item["reason"]


def test_a_run_again_does_nothing_and_the_pages_are_made_from_records_alone(
    searched: tuple[Path, Path, Any], tmp_path: Path
) -> None:
    suite, run, _ = searched
    before = {path: path.stat().st_mtime_ns for path in (run / "records").rglob("*.json")}
    run_suite(suite, out=run)
    assert {path: path.stat().st_mtime_ns for path in (run / "records").rglob("*.json")} == before
    for page in build([run], tmp_path / "again").iterdir():
        assert page.read_bytes() == (run / "leaderboard" / page.name).read_bytes()
