"""Searches on the board: who wins, what is listed, what it cost."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from saebench.artifacts import write_record
from saebench.cells.cell import Tune
from saebench.leaderboard import build, load, summary
from saebench.leaderboard.read.columns import COST
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.site import Site

Records = dict[str, dict[str, Any]]
Values = dict[str, list[float | None]]
TOKENS = 49_152
STEPS = [
    {"tokens": TOKENS // 2**i, "flops": TOKENS // 2**i * 10, "fvu": 0.2 + 0.02 * i, "l0": 8.0} for i in range(5, -1, -1)
]
SECONDS = (1e-5, 0.5, 0.0)
VALIDATION: Values = {"lr0.1": [0.30, 0.32, 0.34], "lr0.2": [0.20, 0.21, 0.22], "lr0.3": [0.25, 0.25, 0.25]}
Maker = Callable[..., dict[str, Any]]


def candidates(
    generator: ModuleType,
    validation: Values,
    *,
    metric: str = "fvu",
    direction: str = "lower",
    planned: int | None = None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Records and stability groups of one search; a candidate without a value at a seed diverged there."""
    records, groups = [], []
    for number, (point, values) in enumerate(validation.items()):
        members = []
        for seed, value in enumerate(values):
            # on test data the order is another: the losers are better there
            scores = {"fvu": 0.1 * (number + 1), "variance-explained": 1 - 0.1 * (number + 1), "l0": 8.0}
            error = None if value is not None else {"type": "Diverged", "message": "the loss was not finite"}
            judged = {"metric": metric, "value": value, "n": 4_096, "on": "docs", "reason": None}
            n = planned or len(validation)
            record = generator.cell_record(
                "tuned",
                point,
                seed,
                scores,
                config={"d_sae": 512, "k": 8, "at": number},
                expected_l0=8.0,
                tokens=TOKENS,
                status="ok" if value is not None else "diverged",
                error=error,
                trajectory=STEPS,
                seconds=SECONDS,
                part="test",
                budget={"primary": "tokens", "counts": "train", "share": 150_000},
                validation=judged,
                tune=Tune(
                    "feedbeefcafe", "default", metric, direction, "reconstruction", "1", {"lr": float(point[2:])}, n
                ),
            )
            members.append(record)
        records += members
        groups.append(generator.group_record(members, {"sfr": 0.5 + 0.1 * number, "matched-cosine": 0.6}))
    return records, groups


def plain(generator: ModuleType) -> list[dict[str, Any]]:
    records = []
    steps = [
        {**step, "tokens": 3 * step["tokens"], "flops": 3 * step["flops"], "fvu": step["fvu"] - 0.05} for step in STEPS
    ]
    for seed in range(3):
        scores = {"fvu": 0.15 + 0.01 * seed, "variance-explained": 0.85 - 0.01 * seed, "l0": 8.0}
        record = generator.cell_record(
            "plain",
            "default",
            seed,
            scores,
            config={"d_sae": 512, "k": 8},
            expected_l0=8.0,
            tokens=3 * TOKENS,
            trajectory=steps,
            seconds=SECONDS,
            part="test",
        )
        records.append(record)
    return records


def folder(tmp_path: Path, generator: ModuleType, validation: Values = VALIDATION, **more: Any) -> Path:
    found, groups = candidates(generator, validation, **more)
    cells = {
        f"records/q/{r['facts']['entry']}/{r['facts']['point']}-s{r['facts']['init_seed']}.json": r
        for r in [*found, *plain(generator)]
    }
    by_path = {f"groups/q/tuned/{g['facts']['point']}.json": g for g in groups}
    written: Path = generator.write_folder(tmp_path / "run", cells, by_path)
    return written


def site_of(where: Path) -> Site:
    (site,) = make_board(merged_records([where])).suites[0].sites
    return site


def test_the_best_on_validation_data_counts_for_its_entry(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator))
    assert [row.label for row in site.rows] == ["plain", "tuned lr0.2"]  # lr0.1 is the best on test data
    row = site.rows[1]
    assert row.tune.text == "best of 3 by validation fvu"
    assert row.tune.validation.value == pytest.approx(0.21)
    assert row.group["sfr"].value == pytest.approx(0.6)  # the winner's own stability
    (search,) = site.searches
    assert [item.label for item in search.candidates] == ["lr0.2", "lr0.3", "lr0.1"]
    assert [item.won for item in search.candidates] == [True, False, False]
    assert search.winner == row.id
    last = search.candidates[2].validation
    half = 4.302652729911275 * math.sqrt(0.0004 / 3)  # t(2) s / sqrt(3), s = 0.02
    assert (last.value, last.half, last.n) == (pytest.approx(0.32), pytest.approx(half), 3)
    names = {name for level in site.levels for name in level.order}
    assert names == {"plain", "tuned"}


def test_the_direction_of_the_metric_decides(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator, metric="variance-explained", direction="higher"))
    assert {row.label for row in site.rows} == {"plain", "tuned lr0.1"}


def test_of_equal_means_the_first_name_wins(tmp_path: Path, generator: ModuleType) -> None:
    same: list[float | None] = [0.2, 0.2, 0.2]
    site = site_of(folder(tmp_path, generator, {"lr0.3": same, "lr0.2": same, "lr10": same}))
    assert site.rows[1].label == "tuned lr0.2"


def test_a_candidate_that_failed_is_listed_with_its_reason_and_cannot_win(
    tmp_path: Path, generator: ModuleType
) -> None:
    failed: Values = {"lr0.1": [0.3, 0.3, 0.3], "lr0.2": [0.1, 0.1, None], "lr0.3": [None, None, None]}
    site = site_of(folder(tmp_path, generator, failed))
    assert {row.label for row in site.rows} == {"plain", "tuned lr0.1"}
    by_label = {item.label: item for item in site.searches[0].candidates}
    assert by_label["lr0.2"].reason == "cannot win with 2 of 3 seeds; seed 2 diverged: the loss was not finite"
    assert by_label["lr0.2"].validation.value == pytest.approx(0.1)
    assert by_label["lr0.3"].validation.value is None
    assert by_label["lr0.3"].reason.count("diverged: the loss was not finite") == 3
    assert by_label["lr0.3"].row is None


def test_a_search_without_any_value_has_no_winner(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator, {"lr0.1": [None], "lr0.2": [None]}))
    assert [row.label for row in site.rows] == ["plain"]
    (search,) = site.searches
    assert (search.winner, search.reason) == (None, "no candidate has a validation value")
    build([folder(tmp_path, generator, {"lr0.1": [None], "lr0.2": [None]})], tmp_path / "out")


def test_a_search_that_is_not_finished_says_so(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator, planned=5))
    assert site.rows[1].tune.text == "best of 3 (of 5 planned) by validation fvu"
    assert (site.searches[0].recorded, site.searches[0].planned) == (3, 5)


def test_the_whole_search_is_what_the_winner_cost(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator))
    (search,) = site.searches
    assert search.cost.tokens == 3 * TOKENS
    assert search.cost.seconds == pytest.approx(3 * TOKENS * 1e-5)
    assert [item.cost.tokens for item in search.candidates] == [TOKENS] * 3
    row = site.rows[1]
    assert (row.cost["train_tokens"], row.cost["search_tokens"]) == (TOKENS, 2 * TOKENS)
    assert row.shown(COST[0]).value == row.shown(COST[1]).value == 3 * TOKENS
    assert site.rows[0].shown(COST[0]).value == 3 * TOKENS
    assert any("150k tokens a search, divided among 3 candidates" in text for text in site.budgets)


def test_equal_spend_counts_the_other_candidates(tmp_path: Path, generator: ModuleType) -> None:
    site = site_of(folder(tmp_path, generator))
    state = site.equal_spend.states["tokens-training"]
    assert state.spend == 3 * TOKENS  # not a third of it, though the winner itself trained on that
    assert set(state.set_by) == {"plain", "tuned lr0.2"}
    (group,) = state.levels[0].groups
    assert group.contenders["tuned"].value == pytest.approx(STEPS[-1]["fvu"])
    assert group.contenders["plain"].value == pytest.approx(STEPS[-1]["fvu"] - 0.05)


def test_a_search_that_spent_more_than_others_trained_on_is_told_so(tmp_path: Path, generator: ModuleType) -> None:
    where = folder(tmp_path, generator)
    for path in (where / "records/q/plain").glob("*.json"):
        record = json.loads(path.read_text())
        record["facts"]["training"]["trajectory"] = STEPS  # a third of what the search spent
        del record["measured"]["trajectory_s"]
        write_record(path, record)
    (out,) = (item for item in site_of(where).equal_spend.states["tokens-training"].left_out if "search" in item.reason)
    assert out.contenders == ("tuned lr0.2",)
    assert "its data, parent and search alone cost 98.3k tokens" in out.reason


def test_the_pages_tell_of_the_search(tmp_path: Path, generator: ModuleType) -> None:
    where = folder(tmp_path, generator)
    out = build([where], tmp_path / "out")
    readme, page = (out / "README.md").read_text(), (out / "index.html").read_text()
    for text in (readme, page):
        assert "best of 3 by validation fvu" in text
        assert "3 candidates, the lowest fvu on the validation part of docs (4,096 tokens) wins" in text
        assert "test part of what is held out" in text
    assert "### Search: tuned" in readme
    assert 'id="search-feedbeef"' in page
    assert 'href="#search-feedbeef"' in page
    data = json.loads((out / "data.json").read_text())
    assert len(data["suites"][0]["sites"][0]["searches"][0]["candidates"]) == 3
    again = build([where], tmp_path / "again")
    assert (again / "index.html").read_bytes() == (out / "index.html").read_bytes()
    assert "tuned lr0.2: best of 3 by validation fvu" in summary([where]).splitlines()


def test_pages_without_a_search_say_nothing_of_one(records: tuple[Records, Records], folder: Path) -> None:
    board = make_board(merged_records([folder]))
    assert all(site.searches == () for suite in board.suites for site in suite.sites)
    assert all(row.tune is None for suite in board.suites for site in suite.sites for row in site.rows)


def test_scores_on_the_test_part_share_no_table_with_scores_on_all(tmp_path: Path, generator: ModuleType) -> None:
    where = folder(tmp_path, generator)
    for path in (where / "records/q/plain").glob("*.json"):
        record = json.loads(path.read_text())
        del record["facts"]["evaluation"]["part"]
        write_record(path, record)
    sites = make_board(merged_records([where])).suites[0].sites
    assert sorted([row.entry for row in site.rows] for site in sites) == [["plain"], ["tuned"]]
    assert sorted(len(site.searches) for site in sites) == [0, 1]


def test_the_frame_holds_every_candidate_and_what_it_went_by(tmp_path: Path, generator: ModuleType) -> None:
    frame = load(folder(tmp_path, generator))
    tuned = frame[(frame.entry == "tuned") & (frame.metric == "fvu")]
    assert set(tuned.search) == {"feedbeefcafe"}
    assert sorted(set(tuned.validation)) == sorted(value for values in VALIDATION.values() for value in set(values))
    assert frame[frame.entry == "plain"].search.isna().all()


def test_a_record_whose_search_cannot_be_read_is_named(tmp_path: Path, generator: ModuleType) -> None:
    where = folder(tmp_path, generator)
    path = where / "records/q/tuned/lr0.1-s0.json"
    record = json.loads(path.read_text())
    record["facts"]["tune"] = {"metric": "fvu"}
    write_record(path, record)
    (left_out,) = merged_records([where]).left_out
    assert (left_out.kind, left_out.path) == ("unreadable", "records/q/tuned/lr0.1-s0.json")
    assert "facts.tune.group: field required" in left_out.reason
