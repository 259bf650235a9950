from __future__ import annotations

from types import SimpleNamespace

import pytest

from saebench.cells.cell import Tune
from saebench.execute import records


def cell(control=False):
    return SimpleNamespace(control=control, tokens=4_096, tune=None)


def plan(**budget):
    return SimpleNamespace(budget={"primary": "tokens", "share": 4_000, "counts": "train", **budget})


def test_a_budget_is_told_in_its_own_unit_and_in_tokens():
    assert records.budget_facts(cell(), plan(primary="flops", share=10**9)) == {
        "primary": "flops",
        "share": 10**9,
        "tokens": 4_096,
        "counts": "train",
    }
    control = records.budget_facts(cell(control=True), plan())
    assert control["share"] is control["tokens"] is None


def test_a_share_of_seconds_comes_with_what_turned_it_into_tokens(monkeypatch):
    monkeypatch.setattr(records, "training_key", lambda cell: "mine")
    calibration = {
        "cpu": "a processor",
        "threads": 2,
        "seconds_per_step": {"mine": 0.5, "another": 0.1},
        "seconds_per_sampled_token": {},
    }
    facts = records.budget_facts(cell(), plan(primary="device_seconds", share=8.0, calibration=calibration))
    assert facts["calibration"] == {"cpu": "a processor", "threads": 2, "seconds_per_step": 0.5}
    assert "calibration" not in records.budget_facts(cell(control=True), plan(calibration=calibration))


@pytest.mark.parametrize("control", [False, True])
def test_what_training_left_in_the_record_s_words(control):
    trained = SimpleNamespace(
        status="ok", error=None, epochs=1.5, training=lambda: {"steps": 3}, input_scale=2.0, spent={"tokens": 3, "flops": 4},
        ancestors={"tokens": 5, "flops": 6}, ancestors_s=7.0, forward={"tokens": 3, "flops": 9}, device_s=1.25, waited_s=0.5,
        trajectory_s=[0.1], peak_memory_bytes=10, peak_memory_scope="here", numerics={"deterministic": False},
    )  # fmt: skip
    source = SimpleNamespace(
        content="c", manifest={}, n_tokens=2, token_policy=None, rounding=None, data_cost={"tokens": 8, "flops": 0}
    )
    of = SimpleNamespace(control=control, parent="p", model=None)
    outcome = records.trained_outcome(of, source, trained, 11.0)
    assert outcome.spent_s == {"train": 1.25, "data": 11.0, "forward": None if control else 0.5, "parent": 7.0}
    assert outcome.spent["forward"] == {"tokens": 0, "flops": 0}  # no model, no forward
    assert outcome.training == (None if control else {"steps": 3})
    assert outcome.deterministic is False
    assert outcome.peak_memory == {"bytes": 10, "scope": "here"}


def test_a_candidate_s_record_holds_its_place_in_the_search_and_others_say_nothing():
    tune = Tune("group", "k4", "fvu", "lower", "reconstruction", "1", {"lr": 0.1}, 3)
    candidate = SimpleNamespace(control=False, tokens=1_280, tune=tune)
    assert records.budget_facts(candidate, plan()) == {**records.budget_facts(cell(), plan()), "tokens": 1_280, "candidates": 3}  # fmt: skip
    assert "candidates" not in records.budget_facts(cell(), plan())
    outcome = records.CellOutcome("failed")
    assert records.tune_facts(cell(), outcome) == {}
    found = records.tune_facts(candidate, outcome)["tune"]
    assert found["validation"] is None
    assert (found["group"], found["values"], found["n_candidates"]) == ("group", {"lr": 0.1}, 3)
    outcome.validation = {"metric": "fvu", "value": 0.5}
    assert records.tune_facts(candidate, outcome)["tune"]["validation"]["value"] == 0.5
