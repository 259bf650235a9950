"""Groups over datasets and seeds: a plugin file's metric gets arrays and codes of every member; its arrays are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from suites import text_file

from saebench.artifacts import RunFolder, iter_groups, iter_records, read_arrays
from saebench.jobs import load_sae, run_suite
from saebench.leaderboard import diff
from saebench.testing import make_model

pytestmark = pytest.mark.usefixtures("without_pages")

SUITE = """
schema: 1
name: across
models:
  - {{id: {folder}/model, hookpoints: [layers.1], context: 32}}
datasets:
  one: {{plugin: local, path: {folder}/one.txt}}
  two: {{plugin: local, path: {folder}/two.txt}}
entries:
  - {{name: a, architecture: topk, dataset: one, config: {{d_sae: 48}}, sweep: {{k: [4, 8]}}}}
  - {{name: b, architecture: topk, dataset: two, config: {{d_sae: 48, k: 4}}}}
train: {{batch: 256}}
evaluation: {{datasets: [one], tokens: 900, loss_tokens: 100, density_tokens: 700}}
budget: {{primary: tokens, tokens: 2_000}}
seeds: {{init: [0, 1]}}
metrics: [fvu, l0, dead-fraction, together]
"""
PLUGIN = """
from pathlib import Path
from saebench.api import GroupMetricSpec, MetricInfo, MetricResult, MetricValue, hookimpl

INFO = MetricInfo("together", "tokens", "higher", "stability", "tokens on which some latent fires in every member")
CALLS = Path(__file__).with_suffix(".calls")


class Together:
    def measure(self, members):
        import torch

        with CALLS.open("a") as file:
            file.write(" ".join(member.label for member in members) + "\\n")
        n = n_tokens = 0
        for batches in zip(*(member.codes() for member in members), strict=True):
            assert len({codes.n_rows for codes in batches}) == 1
            n_tokens += batches[0].n_rows
            n += int(torch.stack([codes.l0() > 0 for codes in batches]).all(0).sum())
        first = members[0]
        again = sum(codes.values.double().sum() for codes in first.codes())
        assert again == sum(codes.values.double().sum() for codes in first.codes())
        facts = [dict(member.facts) for member in members]
        details = {"members": facts, "names": sorted(first.arrays), "n_tokens": n_tokens}
        arrays = {f"share/{member.label}": member.arrays["variance-share"] for member in members}
        return MetricResult({"together": MetricValue.of(INFO, float(n), n_tokens)}, details, arrays)


@hookimpl
def saebench_metrics():
    vary = frozenset({"dataset", "init_seed"})
    return [GroupMetricSpec("together", "1", (INFO,), Together, vary=vary, streams=True)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, two texts, suite and plugin; `run` holds one whole run."""
    folder = tmp_path_factory.mktemp("across")
    make_model(folder / "model", "llama")
    text_file(folder / "one.txt")
    text_file(folder / "two.txt")
    # other words in another order: no document of one may be in the other
    lines = (folder / "two.txt").read_text().split("\n\n")
    (folder / "two.txt").write_text("\n\n".join(" ".join(reversed(line.split())) for line in lines))
    (folder / "across.yaml").write_text(SUITE.format(folder=folder))
    (folder / "plugin.py").write_text(PLUGIN)
    run(folder, folder / "run")
    return folder


def run(folder: Path, out: Path, **options: Any) -> None:
    result = run_suite(folder / "across.yaml", out=out, plugins=[folder / "plugin.py"], **options)
    assert set(result.statuses.values()) == {"ok"}


def across(out: Path) -> tuple[Path, dict[str, Any]]:
    ((path, record),) = [(path, record) for path, record in iter_groups(out) if record["facts"]["vary"] != "init_seed"]
    return path, record


def calls(folder: Path) -> int:
    return len((folder / "plugin.calls").read_text().splitlines())


def test_the_record_says_who_and_holds_what_was_measured(folder: Path) -> None:
    path, record = across(folder / "run")
    facts = record["facts"]
    assert path.relative_to(folder / "run").parts[:3] == ("groups", "across", "across-dataset")
    assert path.name.startswith("topk-k4-")
    assert (facts["vary"], facts["entry"], facts["point"]) == ("dataset+init_seed", "a + b", "k4")
    assert (facts["architecture"], facts["datasets"]) == ("topk", ["one", "two"])
    members = [
        (member["label"], member["entry"], member["dataset"], member["init_seed"]) for member in facts["members"]
    ]
    assert members == [
        ("one s0", "a", "one", 0),
        ("one s1", "a", "one", 1),
        ("two s0", "b", "two", 0),
        ("two s1", "b", "two", 1),
    ]
    assert facts["metrics"]["together"]["value"] == 900
    assert facts["details"]["n_tokens"] == 900
    assert facts["details"]["names"] == ["density", "variance-share"]
    told = facts["details"]["members"]
    assert [(one["dataset"], one["entry"], one["init_seed"]) for one in told] == [(d, e, s) for _, e, d, s in members]
    assert [one["score_id"] for one in told] == [member["score_id"] for member in facts["members"]]


def test_arrays_are_kept_and_named(folder: Path) -> None:
    run_folder = RunFolder(folder / "run")
    _, record = across(run_folder.root)
    labels = ["one s0", "one s1", "two s0", "two s1"]
    assert record["facts"]["arrays"] == [f"share/{label}" for label in labels]
    arrays = read_arrays(run_folder.group_arrays(record["group_id"]), record["arrays_sha256"])
    assert sorted(arrays) == record["facts"]["arrays"]
    cells = {cell["score_id"]: cell for _, cell in iter_records(run_folder.root)}
    for member in record["facts"]["members"]:
        shares = arrays[f"share/{member['label']}"]
        assert shares.shape == (48,)
        assert bool(shares.isfinite().all())
        own = read_arrays(run_folder.arrays(member["cell_id"]), cells[member["score_id"]]["arrays_sha256"])
        assert shares.equal(own["variance-share"])
        assert bool((shares != 0).any())


def test_groups_of_seeds_alone_stand_beside_it(folder: Path) -> None:
    names = sorted(record["facts"]["entry"] for _, record in iter_groups(folder / "run"))
    assert names == ["a", "a", "a + b", "b"]


def test_running_again_scores_nothing_and_changes_nothing(folder: Path) -> None:
    before = {path: path.read_bytes() for path in (folder / "run").rglob("*") if path.is_file()}
    n = calls(folder)
    run(folder, folder / "run")
    assert calls(folder) == n
    assert {path: path.read_bytes() for path in before} == before


def test_what_is_lost_is_scored_anew_and_equal(folder: Path) -> None:
    run_folder = RunFolder(folder / "run")
    path, record = across(run_folder.root)
    arrays = run_folder.group_arrays(record["group_id"])
    content, n = arrays.read_bytes(), calls(folder)
    trained = {path: path.stat().st_mtime_ns for path in (run_folder.root / "checkpoints").rglob("*")}
    for lost in (arrays, path):
        lost.unlink()
        run(folder, run_folder.root)
        n += 1
        assert calls(folder) == n
        assert across(run_folder.root)[1]["facts"] == record["facts"]
        assert arrays.read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in (run_folder.root / "checkpoints").rglob("*")} == trained


def test_another_run_has_equal_facts_and_arrays(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "again")
    assert diff(folder / "run", tmp_path / "again") == []
    (_, first), (_, second) = across(folder / "run"), across(tmp_path / "again")
    assert first["group_id"] == second["group_id"]
    assert first["facts"] == second["facts"]
    assert (
        RunFolder(folder / "run").group_arrays(first["group_id"]).read_bytes()
        == RunFolder(tmp_path / "again").group_arrays(second["group_id"]).read_bytes()
    )


def test_one_entry_alone_forms_no_group_over_datasets(folder: Path, tmp_path: Path) -> None:
    n = calls(folder)
    run(folder, tmp_path / "only", only="a")
    assert calls(folder) == n
    assert {record["facts"]["vary"] for _, record in iter_groups(tmp_path / "only")} == {"init_seed"}


def test_variance_shares_of_a_trained_sae_are_those_of_silencing(folder: Path) -> None:
    """Through the whole harness: the stored array against decoding without one latent, on the same held-out tokens."""
    import torch

    run_folder = RunFolder(folder / "run")
    record = next(record for _, record in iter_records(run_folder.root) if record["facts"]["entry"] == "b")
    sae = load_sae(run_folder.checkpoint(record["cell_id"]))
    shares = read_arrays(run_folder.arrays(record["cell_id"]), record["arrays_sha256"])["variance-share"].double()
    x = _held_out(folder)
    assert len(x) == 900
    with torch.no_grad():
        codes = sae.encode(x)
        dense = codes.to_dense()
        centred = (x - x.double().mean(0)).double().square().sum()

        def explained(kept: torch.Tensor) -> float:
            found = sae.decode(type(codes).from_dense(kept))
            return 1 - float((x.double() - found.double()).square().sum() / centred)

        whole = explained(dense)
        assert whole == pytest.approx(1 - record["facts"]["metrics"]["fvu"]["value"], abs=1e-6)
        for latent in shares.abs().topk(5).indices.tolist():
            kept = dense.clone()
            kept[:, latent] = 0
            assert float(shares[latent]) == pytest.approx((whole - explained(kept)) / whole, rel=1e-3, abs=1e-6)


def _held_out(folder: Path) -> Any:
    """`[n, d_in]` rows of the one store of held-out activations of the dataset."""
    from saebench.activations.store import ActivationStore

    found = []
    for path in sorted((folder / "run" / "activations").glob("*/manifest.json")):
        manifest = json.loads(path.read_text())
        if manifest["key"].get("split") == "held-out":
            found.append(ActivationStore(path.parent, manifest))
    (store,) = found
    return store.slice(0, store.n_rows).x
