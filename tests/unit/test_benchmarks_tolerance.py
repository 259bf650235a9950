"""`benchmarks/tolerance`: the file that `diff --tolerant` goes by, and how it is made."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from saebench.leaderboard.read.records import GroupRecord
from saebench.leaderboard.read.tolerance import Tolerance, table, tolerances
from saebench.metrics.catalogue import INFO
from saebench_plugins.faithful.ffr_spec import FFR

ROOT = Path(__file__).parents[2]
NULL_THERE = {"block-agreement", "ultralow-fraction"}
"""No architecture with blocks; under a million tokens."""
SINCE = {f"{id}-data-null" for id in ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs")} | {
    *(f"ffr-{kind}-{form}" for kind in ("random", "text", "self") for form in ("l0", "of-ceiling")),
    "ffr-contrast", "ffr-contrast-alive", "values-per-token", "bits-per-token", "fvu-16bit",
}  # fmt: skip
"""Ids that are younger than the table: until it is made anew they may move as what it does not know."""


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tolerance_measure", ROOT / "benchmarks" / "tolerance" / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_metric_of_this_package_has_a_tolerance() -> None:
    facts = {info.id for info in [*INFO.values(), *FFR] if not info.measured}
    assert facts - tolerances().keys() - SINCE == NULL_THERE


def test_the_page_shows_what_the_file_holds(measure: ModuleType) -> None:
    page = (ROOT / "docs" / "tolerance.md").read_text("utf-8")
    assert f"<!-- table -->\n{measure.as_page(table())}\n<!-- end -->" in page


@pytest.mark.parametrize(
    ("row", "allowed"),
    [
        ({"drift": 0.00101, "noise": 0.0018}, {"absolute": 0.0016, "relative": 1e-6}),
        ({"drift": 0.001, "noise": 0.9}, {"absolute": 0.0015, "relative": 1e-6}),
        ({"drift": 0.0, "noise": None}, {"relative": 1e-6}),
        ({"drift": 0.02, "noise": 0.1, "relative": True}, {"relative": 0.03}),
        ({"drift": 0.0, "noise": 0.0, "relative": True}, {"relative": 1e-6}),
        ({"drift": 0.0, "noise": 0.0, "relative": True, "counts": True}, {}),
        ({"drift": 0.001, "noise": 0.0, "latents": True}, {"absolute": 0.0015, "relative": 1e-6, "latents": 2}),
    ],
)
def test_what_is_allowed_is_half_as_much_again_as_was_seen(
    measure: ModuleType, row: dict[str, Any], allowed: dict[str, float]
) -> None:
    made = measure.Row(**{"kind": "x", "relative": False, "latents": False, "counts": False, **row})
    assert yaml.safe_load(made.to_yaml())["x"]["allowed"] == allowed
    assert Tolerance(**allowed).allowed(0.0, 0.0) == allowed.get("absolute", 0.0)


def test_a_value_over_its_seed_noise_is_marked(measure: ModuleType) -> None:
    values = {
        "mine": {"allowed": {"absolute": 0.02, "relative": 1e-6}, "drift": 0.01, "noise": 0.01},
        "mine/stderr": {"allowed": {"absolute": 0.02, "relative": 1e-6}, "drift": 0.01, "noise": 0.01},
        "quiet": {"allowed": {"relative": 0.02}, "drift": 0.01, "noise": 0.04},
    }
    how = {"machine": "m", "date": "d", "torch": "t", "cells": 3, "ways": {"a": "plain", "b": "onednn"}}
    *said, _, _, mine, quiet = measure.as_page({"measured": how, "values": values}).splitlines()
    assert said == ["Measured on m, d, torch t, 3 cells a way; 2 ways:", "- `a`: plain", "- `b`: onednn", ""]
    assert mine.split() == ["|", "`mine`", "|", "0.01", "|", "0.01", "|", "0.02", "|", "2.00", "!", "|"]
    assert quiet.split() == ["|", "`quiet`", "|", "1", "%", "|", "4", "%", "|", "2", "%", "|", "0.50", "|"]


def test_the_noise_of_a_value_for_all_seeds_is_twice_its_standard_error_over_them(measure: ModuleType) -> None:
    def group(value: float | None, stderr: float | None) -> GroupRecord:
        return GroupRecord("", {"facts": {"metrics": {"sfr": {"value": value, "stderr": stderr}}}})

    groups = [group(0.5, 0.03), group(0.25, 0.04), group(None, None), group(0.0, 0.0)]
    assert measure.group_noise(groups, relative=False) == {"sfr": pytest.approx(0.08)}
    assert measure.group_noise(groups, relative=True) == {"sfr": pytest.approx(0.32)}
