"""Records, groups and plans of any shape: one line says what is wrong, and what is right passes."""

from __future__ import annotations

from typing import Any

import pytest
from bare_records import bare_cell, bare_group

from saebench.artifacts.shapes import misshapen

METRIC = {"value": 0.5, "unit": "fraction", "direction": "lower", "n": 8, "stderr": 0.1, "reason": None}
CELL = {"suite": "s", "entry": "e", "point": "k8", "init_seed": 0, "cell_id": "ab12", "score_id": "cd34"}


def deep(levels: int) -> Any:
    tree: Any = 1
    for _ in range(levels):
        tree = [tree]
    return tree


def test_sound_ones_pass() -> None:
    assert misshapen("cell", bare_cell(metrics={"fvu": METRIC}, details={"a": deep(20)}, config={"k": 10**200})) is None
    assert misshapen("group", bare_group(metrics={"sfr": {**METRIC, "value": None, "reason": "one seed"}})) is None
    assert misshapen("plan", {"suite": "s", "cells": [CELL]}) is None


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"init_seed": "zero"}, "facts.init_seed: input should be a valid integer, got 'zero'"),
        ({"init_seed": True}, "facts.init_seed: input should be a valid integer, got True"),
        ({"init_seed": -1}, "facts.init_seed: input should be greater than or equal to 0, got -1"),
        (
            {"metrics": {"fvu": {**METRIC, "value": True}}},
            "facts.metrics.fvu.value: input should be a valid number, got True",
        ),
        (
            {"metrics": {"fvu": {**METRIC, "value": "0.5"}}},
            "facts.metrics.fvu.value: input should be a valid number, got '0.5'",
        ),
        (
            {"metrics": {"fvu": {**METRIC, "value": 1e61}}},
            "facts.metrics.fvu.value: input should be less than or equal to 1000",
        ),
        (
            {"metrics": {"fvu": {**METRIC, "value": float("nan")}}},
            "facts.metrics.fvu.value: input should be a finite number",
        ),
        ({"metrics": {"fvu": {**METRIC, "n": -1}}}, "facts.metrics.fvu.n: input should be greater than or equal to 0"),
        (
            {"metrics": {"fvu": {**METRIC, "stderr": -0.1}}},
            "facts.metrics.fvu.stderr: input should be greater than or equal to 0",
        ),
        ({"metrics": {"fvu": 0.5}}, "facts.metrics.fvu: input should be a valid dictionary"),
        ({"metrics": [METRIC]}, "facts.metrics: input should be a valid dictionary"),
        ({"metrics": {"fvu": {"value": 0.5}}}, "facts.metrics.fvu.unit: field required"),
        ({"status": "fine"}, "facts.status: input should be 'ok', 'failed', 'diverged', 'over_budget' or 'skipped'"),
        ({"dataset": []}, "facts.dataset: input should be a valid dictionary"),
        ({"entry": ""}, "facts.entry: string should have at least 1 character"),
        ({"entry": "e" * 301}, "facts.entry: string should have at most 300 characters"),
        ({"spent": {"train": {"flops": -1e9}}}, "facts.spent.train.flops: input should be greater than or equal to 0"),
        (
            {"training": {"trajectory": [{"tokens": "1"}]}},
            "facts.training.trajectory.0.tokens: input should be a valid number",
        ),
        ({"details": {"a": deep(60)}}, "nested deeper than 40 levels"),
        ({"config": {"k": 10**400}}, "an integer of 1329 bits"),
        ({"config": {"k": 1.7e308}}, "a number of 1.7e+308"),
        ({"config": {"k": "\ud800"}}, r"half a character in '\ud800'"),
        ({"error": {"message": "\ud800"}}, "facts.error.message: input should be a valid string"),
    ],
)
def test_a_cell_of_another_shape(facts: dict[str, Any], said: str) -> None:
    wrong = misshapen("cell", bare_cell(**facts))
    assert wrong is not None
    assert wrong.startswith(said)
    assert len(wrong) <= 300
    assert wrong.isprintable()


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"members": [3]}, "facts.members.0: input should be a valid dictionary"),
        ({"members": [{"status": "ok"}]}, "facts.members.0.score_id: field required"),
        ({"vary": None}, "facts.vary: input should be a valid string"),
    ],
)
def test_a_group_of_another_shape(facts: dict[str, Any], said: str) -> None:
    assert (misshapen("group", bare_group(**facts)) or "").startswith(said)


@pytest.mark.parametrize("entry", ["../../x", "a/b", "..", "a\0", "x" * 201, 3])
def test_a_plan_names_no_other_folder(entry: Any) -> None:
    assert (misshapen("plan", {"suite": "s", "cells": [{**CELL, "entry": entry}]}) or "").startswith("cells.0.entry: ")


@pytest.mark.parametrize("value", [None, 3, "plan", [], {}, {"suite": "s"}, {"suite": "s", "cells": {}}])
def test_anything_is_no_plan(value: Any) -> None:
    assert misshapen("plan", value) is not None
