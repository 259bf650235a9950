from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from saebench.cells.cell import ArchitectureUse, Cell, DatasetUse, EvaluationSettings, TrainSettings, Tune
from saebench.execute import records
from saebench.train import TrainOutcome


def cell(control=False):
    return SimpleNamespace(control=control, trains=not control, tokens=4_096, tune=None)


def plan(**budget):
    return SimpleNamespace(budget={"primary": "tokens", "share": 4_000, "counts": "train", **budget})


DATASET = DatasetUse("text", "docs", "1", "text", {}, "recipe")


def make_cell(**changes):
    made = Cell(
        cell_id="c", score_id="s", suite="t", entry="a", point="k4", sweep={}, where="",
        part=ArchitectureUse("topk", "1", {}), base=None, d_in=4, d_out=4,
        d_sae=8, tags=(), model=None, dataset=DATASET, evaluation=EvaluationSettings(("docs",), 10, 1, 10, (3,)),
        evaluation_datasets=(DATASET,),
        init_seed=0, data_seed=0, parent=None, train=TrainSettings(64, 1e-3, (0.9, 0.99), 1e-8, None, 0.0, 0.0, "rms"),
        tokens=640, control=False, expected_l0=None, cohort="", group="",
    )  # fmt: skip
    return replace(made, **changes)


def record(of, outcome):
    made = SimpleNamespace(budget=plan().budget, suite_digest="d")
    return records.cell_record(of, made, outcome, supersedes=None, environment={})


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
    training = TrainOutcome(
        "c", steps=3, tokens=3, flops=4, ancestors={"tokens": 5, "flops": 6}, ancestors_s=7.0, forward_flops=9,
        data={"tokens": 8, "flops": 1}, data_s=2.0,
        epochs=1.5, input_scale=2.0,
        device_s=1.25, waited_s=0.5, trajectory_s=[0.1], peak_memory_bytes=10, peak_memory_scope="here",
        numerics={"deterministic": False},
    )  # fmt: skip
    source = SimpleNamespace(content="c", manifest={}, n_tokens=2, token_policy=None, rounding=None)
    of = make_cell(control=control, parent="p")
    outcome = records.CellOutcome("ok", trained=records.Trained(training, source, 11.0))
    found = record(of, outcome)
    spent_s = {"train": 1.25, "data": 2.0, "forward": 0.5, "parent": 7.0, "all": 10.75, "scoring": None}
    assert found["measured"]["spent_s"] == spent_s
    assert found["measured"]["times"] == {"train_s": 1.25, "data_s": 11.0}
    assert found["measured"]["peak_memory"] == {"bytes": 10, "scope": "here"}
    assert found["measured"]["trajectory_s"] == [0.1]
    facts = found["facts"]
    assert facts["spent"]["forward"] == {"tokens": 0, "flops": 0}  # no model, no forward
    assert facts["spent"]["parent"] == {"tokens": 5, "flops": 6}
    assert facts["spent"]["data"] == {"tokens": 8, "flops": 1}
    assert facts["spent"]["all"] == {"tokens": 3 + 8 + 5, "flops": 4 + 1 + 6 + 9}
    assert (facts["training"] is None) == control
    assert facts["deterministic"] is False
    assert (facts["dataset"]["epochs"], facts["input_scale"], facts["metrics"]) == (1.5, 2.0, {})


def test_of_a_cell_that_did_not_begin_the_record_says_null():
    found = record(make_cell(), records.CellOutcome("skipped", {"type": "CellError", "message": "no parent"}))
    facts, measured = found["facts"], found["measured"]
    assert facts["training"] is facts["input_scale"] is facts["token_policy"] is facts["dataset"]["content"] is None
    assert set(map(str, facts["spent"].values())) == {"{'tokens': 0, 'flops': 0}"}
    assert facts["metrics"] == facts["metric_info"] == facts["evaluation"] == measured["times"] == {}
    assert set(measured["spent_s"].values()) == {None}
    assert measured["peak_memory"] is None
    assert facts["deterministic"] is True


def test_a_candidate_s_record_holds_its_place_in_the_search_and_others_say_nothing():
    tune = Tune("group", "k4", "fvu", "lower", "reconstruction", "1", {"lr": 0.1}, 3)
    candidate = SimpleNamespace(control=False, trains=True, tokens=1_280, tune=tune)
    plain = records.budget_facts(cell(), plan())
    assert records.budget_facts(candidate, plan()) == {**plain, "tokens": 1_280, "candidates": 3}
    assert "candidates" not in records.budget_facts(cell(), plan())
    outcome = records.CellOutcome("failed")
    assert records.tune_facts(cell(), outcome) == {}
    found = records.tune_facts(candidate, outcome)["tune"]
    assert found["validation"] is None
    assert (found["group"], found["values"], found["n_candidates"]) == ("group", {"lr": 0.1}, 3)
    outcome.scored = SimpleNamespace(validation={"metric": "fvu", "value": 0.5})
    assert records.tune_facts(candidate, outcome)["tune"]["validation"]["value"] == 0.5
