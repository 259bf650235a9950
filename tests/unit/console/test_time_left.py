from __future__ import annotations

import pytest

from saebench.console.time_left import TimeLeft

SECONDS = {"reading": 10.0, "training": 60.0, "groups": 30.0}


def time_left() -> TimeLeft:
    return TimeLeft(SECONDS, {"training": 1000.0, "groups": 2.0})


def test_a_share_of_a_kind_is_by_its_amount() -> None:
    seen = time_left()
    assert seen.planned("training", 500) == 30.0
    assert seen.running("training", 500, 0.5, elapsed=1000.0) == 15.0
    seen.ended("training", 500, elapsed=1.0)
    share, left = seen.read(0.0, elapsed=30.0)
    assert share == pytest.approx(0.3)
    assert left == pytest.approx(70.0)  # as fast as predicted so far


def test_a_kind_without_amounts_goes_by_time_and_never_ends_before_it_does() -> None:
    seen = time_left()
    assert seen.running("reading", None, None, elapsed=4.0) == 4.0
    assert seen.running("reading", None, None, elapsed=400.0) == pytest.approx(9.5)
    seen.ended("reading", None, elapsed=400.0)
    assert seen.planned("reading", None) == 0.0


def test_a_slower_machine_makes_the_rest_longer() -> None:
    seen = time_left()
    seen.ended("training", 1000, elapsed=0.0)
    _, left = seen.read(0.0, elapsed=120.0)
    assert left == pytest.approx(30.0 * (120 + 9) / (60 + 9))  # no more reading comes


def test_what_does_not_come_leaves_the_prediction_and_the_share_never_falls() -> None:
    seen = time_left()
    before, _ = seen.read(20.0, elapsed=1.0)
    after, _ = seen.read(0.0, elapsed=2.0)
    assert after == before == pytest.approx(0.2)
    seen.ended("reading", None, elapsed=4.0)
    seen.leave(("reading", "training"))
    share, left = seen.read(0.0, elapsed=4.0)
    assert share == pytest.approx(0.2)  # 4 of 34 s would be less
    assert left == pytest.approx(30.0)  # the groups alone, as fast as predicted so far
    seen.ended("groups", 1, elapsed=1.0)
    seen.ended("groups", 1, elapsed=1.0)
    assert seen.read(0.0, elapsed=4.0) == (pytest.approx(1.0), 0.0)


def test_when_all_is_trained_no_more_data_is_expected() -> None:
    seen = TimeLeft({"loading": 2.0, "activations": 8.0, "training": 10.0, "leaderboard": 2.0}, {"training": 100.0})
    seen.ended("loading", None, elapsed=1.0)
    seen.ended("training", 50.0, elapsed=5.0)
    assert seen.planned("activations", None) == 8.0
    seen.ended("training", 50.0, elapsed=5.0)
    assert seen.planned("activations", None) == seen.planned("loading", None) == 0.0
    assert seen.read(0.0, elapsed=11.0) == (pytest.approx(11 / 13), pytest.approx(2.0))


def test_what_an_earlier_run_did_is_not_waited_for() -> None:
    seen = time_left()
    seen.spared("training", 500)
    seen.ended("training", 500, elapsed=30.0)
    share, left = seen.read(0.0, elapsed=30.0)
    assert share == pytest.approx(1 / 2)  # of 30 s of training and 30 s of groups: none of the reading comes
    assert left == pytest.approx(30.0)


def test_a_kind_that_was_not_predicted_changes_nothing() -> None:
    seen = time_left()
    seen.ended("matching", None, elapsed=50.0)
    assert seen.read(seen.running("matching", None, 0.5, 50.0), elapsed=0.0)[0] == 0.0


def test_nothing_to_do_is_done() -> None:
    assert TimeLeft({"training": 0.0}, {"training": 0.0}).read(0.0, elapsed=5.0) == (1.0, 0.0)
