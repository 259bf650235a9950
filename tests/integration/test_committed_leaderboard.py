"""The leaderboard in the repository: rebuilt from its own records, and sane."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from saebench.artifacts import iter_groups, iter_records
from saebench.config import load_suite
from saebench.leaderboard import build

BOARD = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    return [record for _, record in iter_records(BOARD)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of its records: index.html and data.json are not committed."""
    return build([BOARD], tmp_path_factory.mktemp("built"))


def test_it_is_what_its_records_give(built: Path) -> None:
    # the chart holds its renderer's fonts: it may change with a version of the renderer, the numbers may not
    command = "run: saebench leaderboard leaderboard --out leaderboard"
    assert (built / "README.md").read_bytes() == (BOARD / "README.md").read_bytes(), command
    assert (BOARD / "chart.svg").is_file()
    assert (built / "index.html").stat().st_size < 900_000


def test_it_was_made_from_the_suite_of_today(records: list[dict[str, Any]]) -> None:
    """A new key of the suite file must not change the digest of a suite that leaves it out."""
    assert {record["facts"]["suite_digest"] for record in records} == {load_suite("quickstart").digest}


def test_every_contender_has_three_seeds_at_every_point_and_all_are_ok(records: list[dict[str, Any]]) -> None:
    counts = Counter((r["facts"]["entry"], r["facts"]["point"]) for r in records if not r["facts"]["control"])
    assert {entry for entry, _ in counts} >= {"topk", "jumprelu", "expander", "faithful", "ssae", "truth"}
    assert set(counts.values()) == {3}
    assert {r["facts"]["status"] for r in records} == {"ok"}
    varied = Counter(group["facts"]["vary"] for _, group in iter_groups(BOARD))
    # TopK on docs and on the model's samples is one contender on two datasets, at two sparsities
    assert varied == {"init_seed": len(counts), "dataset+init_seed": 2}


def test_all_matchings_of_the_seeds_are_proven() -> None:
    pairs = [pair for _, group in iter_groups(BOARD) for pair in group["facts"]["details"].get("stability-pairs", [])]
    assert len(pairs) >= 36
    assert all(pair["proven"] and pair["gap"] < 1e-6 for pair in pairs)


def test_jumprelu_lies_within_a_fifth_of_its_target(records: list[dict[str, Any]]) -> None:
    found = [
        (r["facts"]["expected_l0"], r["facts"]["metrics"]["l0"]["value"])
        for r in records
        if r["facts"]["architecture"] == "jumprelu"
    ]
    assert len(found) >= 6
    assert all(abs(l0 / target - 1) <= 0.2 for target, l0 in found), found


def test_budgets_are_equal_and_kept(records: list[dict[str, Any]]) -> None:
    contenders = [r["facts"] for r in records if not r["facts"]["control"]]
    assert len({facts["budget"]["tokens"] for facts in contenders}) == 1
    for facts in contenders:
        spent = facts["spent"]["train"]["tokens"]
        assert facts["budget"]["tokens"] <= spent < facts["budget"]["tokens"] + facts["train"]["batch"]


def test_controls_bound_the_contenders(records: list[dict[str, Any]]) -> None:
    def value(entry: str, metric: str) -> list[float]:
        return [
            r["facts"]["metrics"][metric]["value"]
            for r in records
            if r["facts"]["entry"] == entry and r["facts"]["model"]
        ]

    assert value("control-identity", "variance-explained") == pytest.approx([1.0], abs=1e-9)
    assert value("control-identity", "ce-recovered-mean") == pytest.approx([1.0], abs=1e-6)
    for contender in ("topk", "jumprelu", "expander", "faithful", "ssae"):
        assert min(value(contender, "variance-explained")) > value("control-permuted", "variance-explained")[0]
        assert min(value(contender, "ce-recovered-mean")) > value("control-random", "ce-recovered-mean")[0]


def test_no_record_and_no_page_tells_where_it_was_made(built: Path) -> None:
    for path in [*BOARD.rglob("*.json"), *built.iterdir()]:
        text = path.read_text("utf-8")
        assert "/home/" not in text
        assert "/root/" not in text
        assert "/tmp/" not in text
