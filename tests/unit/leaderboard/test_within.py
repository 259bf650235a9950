from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.leaderboard import Comparison, Moved, diff_tolerant
from saebench.leaderboard.read.tolerance import Tolerance, tolerances

Records = dict[str, dict[str, Any]]
Change = Callable[[dict[str, Any]], None]
PLACE = "quickstart: topk k8 s1 (docs-lm layers.2)"


@pytest.fixture
def few(records: tuple[Records, Records]) -> tuple[Records, Records]:
    """The records of two contenders: enough to compare, and quickly written."""
    cells, groups = (
        {path: record for path, record in half.items() if "/topk/k8" in path or "/faithful/k8" in path}
        for half in records
    )
    return cells, groups


@pytest.fixture
def changed(tmp_path: Path, generator: ModuleType, few: tuple[Records, Records]) -> Callable[..., Comparison]:
    """Compares the folder with one in which the record of topk k8 s1 was changed (once more)."""
    cells, groups = few
    a = generator.write_folder(tmp_path / "a", cells, groups)
    others = (tmp_path / f"b{n}" for n in range(9))

    def compare(change: Change, record: dict[str, Any] | None = None) -> Comparison:
        change(record or next(record for path, record in cells.items() if "/topk/k8-s1-" in path))
        found: Comparison = diff_tolerant(a, generator.write_folder(next(others), cells, groups))
        return found

    return compare


def set_value(record: dict[str, Any], id: str, by: float) -> None:
    record["facts"]["metrics"][id]["value"] += by


def test_equal_folders_are_equal(changed: Callable[..., Comparison]) -> None:
    found = changed(lambda record: None)
    assert found.within
    assert found.n_values > 50
    assert (found.differences, found.moved, found.ways, found.resampled) == ([], [], [], [])


@pytest.mark.parametrize(
    "id", ["fvu", "variance-explained", "ce-recovered-mean", "kl", "dead-fraction", "l0", "ffr-self"]
)
def test_a_value_may_move_by_its_tolerance_and_no_further(changed: Callable[..., Comparison], id: str) -> None:
    sign = 1 if id < "fvu" else -1
    values: dict[str, float] = {}

    def within(record: dict[str, Any]) -> None:
        old = record["facts"]["metrics"][id]["value"]
        values["step"] = tolerances()[id].allowed(old, old, 512)
        set_value(record, id, sign * 0.9 * values["step"])

    found = changed(within)
    assert found.within
    (moved,) = found.moved
    assert (moved.where, moved.key) == (PLACE, f"metrics.{id}.value")
    assert 0.8 < moved.share <= 1
    found = changed(lambda record: set_value(record, id, sign * 0.2 * values["step"]))
    assert not found.within
    assert [(item.key, item.share > 1) for item in found.outside] == [(f"metrics.{id}.value", True)]
    assert found.differences == []


@pytest.mark.parametrize(
    ("a", "b", "allowed", "within"),
    [
        (0.2, 0.25, 0.1, True),
        (0.2, 0.31, 0.1, False),
        (0.2, 0.2001, 0.0, False),
        (0.2, math.nan, 0.1, False),
        (math.nan, math.nan, 0.1, False),
        (0.2, math.inf, math.inf, False),
    ],
)
def test_what_is_not_finite_is_never_within(a: float, b: float, allowed: float, within: bool) -> None:
    assert (Moved("", "", "fvu", a, b, allowed).share <= 1) is within
    assert (Moved("", "", "fvu", b, a, allowed).share <= 1) is within


def test_flops_of_all_in_move_as_those_of_training_do(changed: Callable[..., Comparison]) -> None:
    def more(record: dict[str, Any]) -> None:
        spent = record["facts"]["spent"]
        spent["train"]["flops"] += 1
        spent["all"]["flops"] += 1

    found = changed(more)
    assert found.within
    assert {moved.key for moved in found.moved} == {"spent.train.flops", "spent.all.flops"}


def nulled(record: dict[str, Any]) -> None:
    record["facts"]["metrics"]["kl"] |= {"value": None, "stderr": None, "reason": "why"}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (nulled, "metrics.kl.value"),
        (lambda record: record["facts"]["config"].update(k=9), "config.k"),
        (lambda record: record["facts"].update(status="diverged"), "status"),
        (lambda record: record["facts"]["spent"]["train"].update(tokens=1), "spent.train.tokens"),
        (lambda record: record["facts"]["spent"]["forward"].update(flops=1), "spent.forward.flops"),
        (lambda record: record["facts"]["metrics"]["fvu"].update(n=1), "metrics.fvu.n"),
        (lambda record: record["facts"]["metrics"].pop("fvu"), "metrics.fvu"),
        (lambda record: record["facts"]["dataset"].update(recipe="e" * 64), "dataset.recipe"),
        (lambda record: record["facts"]["training"].update(steps=1), "training.steps"),
        (lambda record: record["facts"]["training"]["trajectory"].pop(), "training.trajectory"),
        (lambda record: record["facts"]["details"].pop("density-histogram"), "details.density-histogram"),
        (lambda record: record["facts"]["train"].update(lr=1e-9), "train.lr"),
        (lambda record: record["facts"].update(init_scale=1.0), "init_scale"),
        (lambda record: record.update(cell_id="0" * 64), "cell_id"),
    ],
)
def test_what_was_decided_before_training_is_equal_or_a_difference(
    changed: Callable[..., Comparison], change: Change, key: str
) -> None:
    found = changed(change)
    assert not found.within
    assert key in [item.key for item in found.differences]


def test_how_it_was_computed_and_pictures_of_the_same_codes_are_not_compared(
    changed: Callable[..., Comparison],
) -> None:
    def change(record: dict[str, Any]) -> None:
        record["facts"]["training"]["numerics"] = {"backend": "plain"}
        record["facts"]["weights_digest"] = "another"
        record["facts"]["details"]["density-histogram"]["zero"] += 1
        record["measured"] |= {"threads": 7, "backend": "plain"}

    found = changed(change)
    assert found.within
    assert found.moved == []
    assert [what for what, _, b in found.ways if "plain" in b or "7" in b] == ["back end", "threads"]


@pytest.mark.parametrize("kind", ["generated", "synthetic"])
def test_what_is_computed_may_differ_and_is_named_and_other_corpora_may_not(
    kind: str, tmp_path: Path, generator: ModuleType, few: tuple[Records, Records]
) -> None:
    cells, groups = few
    own = [record for record in cells.values() if record["facts"]["dataset"]["name"] == "own"]
    for record in own:
        record["facts"]["dataset"]["kind"] = kind
    a = generator.write_folder(tmp_path / "a", cells, groups)
    for record in own:
        record["facts"]["dataset"] |= {"content": "e" * 64, "n_tokens": 149_990}
    found = diff_tolerant(a, generator.write_folder(tmp_path / "b", cells, groups))
    assert found.within
    assert found.resampled == ["own"]
    for record in cells.values():
        if record["facts"]["dataset"]["name"] == "docs":
            record["facts"]["dataset"]["content"] = "e" * 64
    found = diff_tolerant(a, generator.write_folder(tmp_path / "c", cells, groups))
    assert not found.within
    assert found.differences[0].kind == "corpus differs"
    assert found.differences[0].where == "docs (training part)"


def test_a_metric_that_the_table_does_not_know_may_move_by_its_seed_noise(
    tmp_path: Path, generator: ModuleType, few: tuple[Records, Records]
) -> None:
    cells, groups = few
    for record in cells.values():
        seed = record["facts"]["init_seed"]
        record["facts"]["metrics"]["mine"] = {
            **record["facts"]["metrics"]["fvu"],
            "value": 1.0 + 0.1 * seed,
            "parts": [],
        }
    a = generator.write_folder(tmp_path / "a", cells, groups)
    record = next(record for path, record in cells.items() if "/topk/k8-s1-" in path)
    for by, within in ((0.19, True), (0.02, False), (9.0, False)):
        set_value(record, "mine", by)
        found = diff_tolerant(a, generator.write_folder(tmp_path / str(by), cells, groups))
        assert found.within is within
        assert found.moved[0].allowed == pytest.approx(0.2)


@pytest.mark.parametrize(("stderr", "within"), [(0.006, True), (0.004, False), (None, False)])
def test_without_seeds_it_may_move_by_twice_its_standard_error(
    tmp_path: Path, generator: ModuleType, few: tuple[Records, Records], stderr: float | None, within: bool
) -> None:
    cells, groups = few
    group = groups["groups/quickstart/topk/k8.json"]
    group["facts"]["metrics"]["mine"] = {**group["facts"]["metrics"]["sfr"], "value": 0.5, "stderr": stderr}
    a = generator.write_folder(tmp_path / "a", cells, groups)
    set_value(group, "mine", 0.01)
    assert diff_tolerant(a, generator.write_folder(tmp_path / "b", cells, groups)).within is within


def test_a_share_of_few_latents_may_move_by_whole_latents() -> None:
    share = Tolerance(absolute=0.001, latents=2)
    assert share.allowed(0.0, 0.1, 64) == pytest.approx(2 / 64)
    assert share.allowed(0.0, 0.1, 65_536) == share.allowed(0.0, 0.1) == 0.001
    assert Tolerance(relative=0.1).allowed(-20.0, 10.0, 64) == pytest.approx(2.0)


def test_the_models_own_losses_move_by_the_rounding_of_its_precision(
    tmp_path: Path, generator: ModuleType, few: tuple[Records, Records]
) -> None:
    cells, groups = few
    record = next(record for path, record in cells.items() if "/topk/k8-s1-" in path)
    metrics = record["facts"]["metrics"]
    metrics["ce-clean"] = {**metrics["kl"], "value": 3.5, "parts": []}
    for dtype, within in ((None, False), ("bfloat16", True), ("float16", False)):
        record["facts"]["model"] = {**record["facts"]["model"], **({"load": {"dtype": dtype}} if dtype else {})}
        metrics["ce-clean"]["value"] = 3.5
        a = generator.write_folder(tmp_path / f"a-{dtype}", cells, groups)
        metrics["ce-clean"]["value"] = 3.51
        assert diff_tolerant(a, generator.write_folder(tmp_path / f"b-{dtype}", cells, groups)).within is within
    metrics["train-tokens"] = {**metrics["kl"], "value": 1000, "parts": []}
    a = generator.write_folder(tmp_path / "a", cells, groups)
    metrics["train-tokens"]["value"] = 1001
    assert not diff_tolerant(a, generator.write_folder(tmp_path / "b", cells, groups)).within
