from __future__ import annotations

import math
import statistics
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from saebench.base.student import t_quantile
from saebench.leaderboard.pages.text import rank_text
from saebench.leaderboard.read.merge import merged_records
from saebench.leaderboard.tables.board import make_board
from saebench.leaderboard.tables.equal_spend import CURRENCIES, VIEWS, Comparison, Run, equal_spend
from saebench.leaderboard.tables.ranks import Ranked
from saebench.leaderboard.tables.row import Row, SeedCell
from saebench.leaderboard.tables.trajectories import Point, Spend

Records = dict[str, dict[str, Any]]
BUDGET = {"primary": "tokens", "tokens": 800, "counts": "train"}


def row(
    name: str,
    fvus: dict[int, list[float]],
    *,
    tokens: int = 100,
    flops: int = 1,
    seconds: float | None = 0.01,
    before: float = 0.0,
    data: str = "docs",
    l0: float = 8.0,
    path: list[float] | None = None,
    cpu: str = "one",
    forward: float = 0.0,
    decay: float = 0.2,
) -> Row:
    """A contender whose run noted FVU at `tokens`, 2 `tokens`, 4 `tokens` ...; `path`: its L0 at those points."""
    cells = []
    for seed, fvu in fvus.items():
        at = [tokens * 2**i for i in range(len(fvu))]
        points = tuple(
            Point(float(n), float(n * flops), None if seconds is None else n * seconds, value, own)
            for n, value, own in zip(at, fvu, path or [l0] * len(fvu), strict=True)
        )
        started = Spend(before, before * flops, None if seconds is None else before * seconds)
        forwards = Spend(0.0, forward, None if seconds is None else 0.0)
        cells.append(SeedCell(seed, "", "", "", started, forwards, points))
    # a comparison reads no more of a row than this
    of: Any = SimpleNamespace(
        id=name,
        label=name,
        entry=name,
        data_seed=0,
        training_dataset=data,
        training_recipe=data,
        cells=tuple(cells),
        l0=l0,
        price=l0,
        planned_seeds=tuple(fvus),
        train={"decay": decay},
        versions={"host": {"cpu": (cpu,), "cores": ("2",)}},
    )
    return of


def seeds(*ends: float) -> dict[int, list[float]]:
    return {seed: [0.8, 0.6, 0.4, end] for seed, end in enumerate(ends)}


def state(*rows: Row, name: str = "tokens-training", levels: tuple[float, ...] = (8.0,)) -> Comparison:
    return equal_spend(rows, [], levels, BUDGET).states[name]


def contenders(found: Comparison) -> dict[str, Ranked]:
    return {name: value for group in found.levels[0].groups for name, value in group.contenders.items()}


def test_a_run_is_linear_in_log_spend_and_exact_at_its_points() -> None:
    run = Run(0.0, ((100.0, 0.8, 20.0), (400.0, 0.4, 10.0)))
    assert run.at(100.0) == (0.8, 20.0)
    assert run.at(400.0) == (0.4, 10.0)
    assert run.at(200.0) == pytest.approx((0.6, 15.0))
    fvu, l0 = run.at(300.0) or (math.nan, math.nan)
    weight = math.log(3) / math.log(4)
    assert (fvu, l0) == pytest.approx((0.8 - 0.4 * weight, 20 - 10 * weight))
    assert run.at(99.0) is None
    assert run.at(401.0) is None


def test_all_in_moves_a_run_and_keeps_its_end() -> None:
    points = ((0.1, 0.8, 8.0), (0.3, 0.5, 8.0), (0.7, 0.3, 8.0))
    for before in (0.1, 0.2, 1 / 3, 1e9 / 7):
        run = Run(before, points)
        assert run.at(run.reach) == pytest.approx((0.3, 8.0), rel=1e-6)
        assert run.at(before) is None
        assert run.at(before / 2) is None


def test_one_point_is_a_run() -> None:
    assert Run(0.0, ((5.0, 0.5, 8.0),)).at(5.0) == (0.5, 8.0)
    assert Run(0.0, ((5.0, 0.5, 8.0),)).at(4.0) is None


def test_all_are_read_at_the_largest_spend_that_all_reached() -> None:
    long, short = row("long", seeds(0.2, 0.21, 0.22)), row("short", {s: [0.7, 0.5, 0.35 + s / 100] for s in range(3)})
    found = state(long, short)
    assert (found.spend, found.set_by, found.left_out) == (400.0, ("short",), ())
    told = contenders(found)
    # `long` is read at its third point, where all its seeds noted 0.4, not at its end
    assert (told["long"].value, told["long"].half, told["long"].n) == pytest.approx((0.4, 0.0, 3))
    logs = [math.log(0.35 + seed / 100) for seed in range(3)]
    middle, half = statistics.mean(logs), t_quantile(2) * statistics.stdev(logs) / math.sqrt(3)
    assert told["short"].value == pytest.approx(math.exp(middle))
    assert told["short"].half == pytest.approx((math.exp(middle + half) - math.exp(middle - half)) / 2)
    assert [told[name].standing.best for name in ("short", "long")] == [1, 2]
    assert found.levels[0].groups[0].order == ("short", "long")


def test_what_the_seeds_do_not_separate_is_a_tie() -> None:
    a, b, c = row("a", seeds(0.20, 0.24, 0.22)), row("b", seeds(0.21, 0.22, 0.23)), row("c", seeds(0.30, 0.31, 0.32))
    told = contenders(state(a, b, c))
    assert [rank_text(told[name].standing) for name in "abc"] == ["1–2", "1–2", "3"]
    assert told["a"].standing.ties == ("b",)


def test_one_seed_is_shown_and_not_ranked() -> None:
    told = contenders(state(row("a", seeds(0.2)), row("b", seeds(0.3, 0.31))))
    assert told["a"].value == 0.2
    assert told["a"].half is None
    assert told["a"].standing.reason == "one seed"


def test_each_currency_has_its_own_leader() -> None:
    """`cheap` needs a tenth of the FLOPs and twice the seconds of `dear` for a token."""
    cheap = row("cheap", seeds(0.30, 0.31, 0.32), flops=1, seconds=0.02)
    dear = row("dear", seeds(0.20, 0.21, 0.22), flops=10, seconds=0.01)
    leaders = {}
    for currency in CURRENCIES:
        found = state(cheap, dear, name=f"{currency}-training")
        leaders[currency] = (found.spend, found.levels[0].groups[0].order[0])
    assert leaders == {"tokens": (800.0, "dear"), "flops": (800.0, "cheap"), "seconds": (8.0, "dear")}


def test_all_in_counts_data_and_parent_and_names_who_had_not_begun() -> None:
    plain, child = row("plain", seeds(0.3, 0.31, 0.32)), row("child", seeds(0.2, 0.21, 0.22), before=400.0)
    late = row("late", seeds(0.2, 0.21, 0.22), before=900.0)
    found = state(plain, child, late, name="tokens-all-in")
    assert (found.spend, found.set_by) == (800.0, ("plain",))
    # `child` had 400 of its own tokens left
    assert contenders(found)["child"].value == pytest.approx(0.4)
    (out,) = found.left_out
    assert out.contenders == ("late",)
    assert "its data and parent alone cost 900 tokens" in out.reason
    assert contenders(state(plain, child, late))["late"].standing.best == 1


def test_all_in_flops_hold_the_forwards_of_the_model() -> None:
    plain, live = row("plain", seeds(0.3, 0.31)), row("live", seeds(0.2, 0.21), flops=1, forward=8_000.0)
    spend = {name: state(plain, live, name=f"flops-{name}").spend for name in VIEWS}
    assert spend == {"training": 800.0, "all-in": 800.0}
    assert state(live, name="flops-all-in").spend == 800.0 + 8_000.0
    # at 8,800 / 2 of its FLOPs it is half-way through its tokens
    half = row("half", {0: [0.5, 0.4, 0.35], 1: [0.5, 0.4, 0.35]}, forward=4_000.0)
    assert contenders(state(live, half, name="flops-all-in"))["live"].value == pytest.approx(0.4)
    assert state(plain, live, name="tokens-all-in").spend == 800.0


def test_a_reading_before_the_end_of_a_schedule_is_marked_and_an_early_one_is_none() -> None:
    """The schedules end at 800 and 6,400 tokens; the learning rate decays in the last fifth."""
    long = row("long", {0: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]})
    for tokens, mark in ((800.0, "at 12% of"), (3_200.0, "at 50% of its schedule, before its decay"), (6_400.0, None)):
        short = row("short", {0: [0.5]}, tokens=int(tokens))
        found = state(long, short)
        assert found.spend == tokens
        if tokens == 800.0:
            assert [item.contenders for item in found.left_out] == [("long",)]
            assert found.left_out[0].reason.startswith("read at 12% of its schedule, under 30%")
            assert "long" not in contenders(found)
        else:
            assert found.levels[0].groups[0].marks == ({} if mark is None else {"long": mark})
            assert found.left_out == ()
    late = row("late", {0: [0.5]}, tokens=5_760)
    assert state(long, late).levels[0].groups[0].marks == {"long": "at 90% of its schedule, in its decay"}
    level = row("level", {0: [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]}, decay=0.0)
    assert state(level, late).levels[0].groups[0].marks == {}


def test_records_without_trajectory_or_seconds_are_left_out_with_a_reason() -> None:
    fitted, old, new = (
        row("fitted", {0: [], 1: []}),
        row("old", seeds(0.2, 0.3), seconds=None),
        row("new", seeds(0.2, 0.3)),
    )
    control: Any = SimpleNamespace(label="control-pca", continued=False)
    states = equal_spend([fitted, old, new], [control], [8.0], BUDGET).states
    out = {item.reason: item.contenders for item in states["seconds-training"].left_out}
    assert {names[0]: reason.split(":")[0] for reason, names in out.items()} == {
        "control-pca": "a control",
        "fitted": "no trajectory in its records",
        "old": "no seconds at its trajectory points",
    }
    assert [item.contenders for item in states["tokens-training"].left_out] == [("control-pca",), ("fitted",)]
    without = equal_spend([fitted], [control], [8.0], BUDGET).states["flops-all-in"]
    assert without.spend is None
    assert without.reason.startswith("no trajectory in its records")
    assert without.levels == ()


def test_contenders_trained_on_other_data_are_shown_and_ranked_apart() -> None:
    a, b, own = row("a", seeds(0.2, 0.21)), row("b", seeds(0.3, 0.31)), row("own", seeds(0.1, 0.11), data="own")
    groups = state(a, b, own).levels[0].groups
    assert [(group.data, group.order) for group in groups] == [("docs", ("a", "b")), ("own", ("own",))]
    assert groups[0].contenders["a"].standing.worst == 1
    assert groups[1].contenders["own"].standing.best is None
    assert "no other contender was trained on the same data" in groups[1].contenders["own"].standing.reason


def test_seconds_of_different_machines_are_not_ranked() -> None:
    rows = row("a", seeds(0.2, 0.21)), row("b", seeds(0.3, 0.31), cpu="two")
    assert contenders(state(*rows))["a"].standing.worst == 1
    found = state(*rows, name="seconds-training")
    assert found.mixed_machines == {"cpu": ("one", "two")}
    assert contenders(found)["a"].standing.reason == "seconds of different machines: cpu one, two"


def test_an_l0_that_is_still_on_its_way_is_not_at_the_level() -> None:
    """A contender is compared at the L0 it had at that spend, not at the one it ended with."""
    short = row("short", {0: [0.8, 0.6, 0.5], 1: [0.8, 0.61, 0.51]})
    moving = row("moving", seeds(0.2, 0.21), path=[40.0, 30.0, 16.0, 8.0])
    level = state(short, moving).levels[0]
    assert level.absent == ("moving",)
    assert level.groups[0].order == ("short",)
    assert level.groups[0].contenders["moving"].reason.startswith("nothing measured at L0 8: the nearest is ")


@pytest.mark.parametrize(
    ("budget", "default"),
    [
        ({"primary": "tokens", "counts": "train"}, "tokens-training"),
        ({"primary": "flops", "counts": "all"}, "flops-all-in"),
        ({"primary": "device_seconds", "counts": "train"}, "seconds-training"),
        ({}, "tokens-training"),
    ],
)
def test_the_suites_own_budget_is_first(budget: dict[str, str], default: str) -> None:
    assert equal_spend([row("a", seeds(0.2, 0.3))], [], [8.0], budget).default == default


def test_where_the_suites_own_currency_was_not_kept_another_is_first() -> None:
    old = row("old", seeds(0.2, 0.3), seconds=None)
    assert equal_spend([old], [], [8.0], {"primary": "device_seconds"}).default == "tokens-training"


def test_the_board_of_records_holds_all_six(folder: Path) -> None:
    site = make_board(merged_records([folder])).suites[0].sites[0]
    states = site.equal_spend.states
    assert set(states) == {f"{currency}-{view}" for currency in CURRENCIES for view in VIEWS}
    assert states["tokens-training"].spend == 150_000
    assert states["flops-training"].set_by == ("expander k8", "expander k16")
    assert states["seconds-training"].spend == pytest.approx(1.5)
    left_out = {item.contenders[0]: item.reason for item in states["seconds-training"].left_out}
    assert left_out.keys() == {"ssae k8", "control-identity", "jumprelu target-l0-8"}
    assert left_out["jumprelu target-l0-8"].startswith("read at ")
    ends = {entry.label: entry.trajectory[-1].fvu for entry in site.rows}
    told = contenders(states["tokens-training"])
    assert told["topk"].value == pytest.approx(ends["topk k8"], rel=1e-4)


def test_a_share_of_another_currency_is_named_instead_of_tokens(
    tmp_path: Path, generator: ModuleType, records: tuple[Records, Records]
) -> None:
    for record in records[0].values():
        facts = record["facts"]
        facts["budget"].update(primary="flops", share=1.5e10, tokens=150_000 if facts["entry"] == "topk" else 700_000)
    site = make_board(merged_records([generator.write_folder(tmp_path, *records)])).suites[0].sites[0]
    assert site.budgets == ("1.50e+10 FLOPs a cell, primary flops, counting train",)
    assert site.equal_spend.default == "flops-training"
