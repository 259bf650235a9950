from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from saebench.api import (
    ArchitectureSpec,
    CellMetricSpec,
    Cost,
    DatasetSpec,
    Findings,
    GroupMetricSpec,
    MetricInfo,
    PluginError,
    Problem,
    Site,
)
from saebench.host import Registered, load_catalog
from saebench.host.fitting import misfit, misshapen_spec
from saebench.plan.contenders.plugin_calls import ask


@dataclass(frozen=True)
class Options:
    d: int = 8


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


def made(*_: Any) -> Any:
    """Never called."""


INFO = MetricInfo("mine", "ratio", "lower", "cost", "a number")
ARCHITECTURE = ArchitectureSpec("mine", "1", Options, made, made)
DATASET = DatasetSpec("mine", "1", Options, "activations", "nowhere:open", site=made)
CELL = CellMetricSpec("mine", "1", (INFO,), made, ("eval",), ("codes",))
GROUP = GroupMetricSpec("mine", "1", (INFO,), made)


def test_sound_specs_fit_also_with_lists_and_sets() -> None:
    catalog = load_catalog()
    everything = (*catalog.architectures.values(), *catalog.datasets.values(), *catalog.metrics.values())
    loose: list[Any] = [replace(CELL, provides=[INFO]), replace(ARCHITECTURE, tags={"control"})]  # type: ignore[arg-type]
    specs = [*(registered.spec for registered in everything), ARCHITECTURE, DATASET, CELL, GROUP, *loose]
    assert [misshapen_spec(spec) for spec in specs] == [None] * len(specs)


@pytest.mark.parametrize(
    ("spec", "change", "words"),
    [
        (DATASET, {"name": None}, "DatasetSpec.name: got None. Allowed: a text"),
        (DATASET, {"name": []}, "DatasetSpec.name: got []"),
        (DATASET, {"name": "../mine"}, "a name in letters, digits and hyphens"),
        (DATASET, {"name": ""}, "DatasetSpec.name: got ''"),
        (DATASET, {"version": 1}, "DatasetSpec.version: got 1"),
        (DATASET, {"version": Unprintable()}, "got Unprintable, which cannot be printed (RuntimeError)"),
        (DATASET, {"kind": "vectors"}, "Allowed: one of text, generated, activations, synthetic"),
        (DATASET, {"options": Options()}, "Allowed: a class"),
        (DATASET, {"site": Site(8, 8)}, "Allowed: a function"),
        (ARCHITECTURE, {"tags": "control"}, "Allowed: a set"),
        (ARCHITECTURE, {"train": None}, "Allowed: saebench.api.TrainDefaults"),
        (ARCHITECTURE, {"wraps": 1}, "ArchitectureSpec.wraps: got 1. Allowed: True or False"),
        (CELL, {"provides": None}, "Allowed: a list or a tuple"),
        (
            CELL,
            {"provides": ("mine",)},
            "an item of CellMetricSpec.provides: got 'mine'. Allowed: saebench.api.MetricInfo",
        ),
        (CELL, {"provides": (INFO, INFO)}, "names the metric 'mine' twice"),
        (CELL, {"provides": (replace(INFO, id=3),)}, "an item of CellMetricSpec.provides.id: got 3"),  # type: ignore[arg-type]
        (CELL, {"streams": "eval"}, "Allowed: a list or a tuple"),
        (CELL, {"fields": ("code",)}, "Allowed: one of codes"),
        (GROUP, {"vary": None}, "Allowed: a set"),
    ],
)
def test_a_spec_of_wrong_types_is_told_by_field(spec: Any, change: dict[str, Any], words: str) -> None:
    assert words in (misshapen_spec(replace(spec, **change)) or "")


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (Cost(1, 1, 1, 1, 1, 1, 1, 2.0), Cost, True),
        (Cost(1, 1, 1, 1, 1, 1, 1, math.nan), Cost, False),
        (Cost(-1, 1, 1, 1, 1, 1, 1), Cost, False),
        (Findings(rows={"train": 3}), Findings, True),
        (Findings(rows={"test": 3}), Findings, False),  # type: ignore[dict-item]
        (Findings(rows={"train": True}), Findings, False),
        ((0.9, 0.99), tuple[float, float], True),
        ((0.9,), tuple[float, float], False),
        ({"a": {1, 2}}, Mapping[str, Any], True),
        ({1: 2}, Mapping[str, Any], False),
        (b"ab", Sequence[int], False),
    ],
)
def test_a_value_fits_its_hint(value: object, hint: Any, fits: bool) -> None:
    assert (misfit(value, hint, "it") is None) is fits


def listing(*values: Any) -> Any:
    yield from values


def failing() -> Any:
    yield Problem("", "one")
    raise ValueError("two")


@pytest.mark.parametrize(
    ("what", "answer", "words"),
    [
        ("check", lambda: None, "check raised TypeError"),
        (
            "check",
            lambda: ["no"],
            "an item of check: got 'no'. Allowed: saebench.api.Problem. This is a bug of the plugin.",
        ),
        ("check", failing, "check raised ValueError: two"),
        ("inspect", lambda: None, "inspect: got None"),
        ("inspect", lambda: Findings(empty=None), "inspect.empty: got None. Allowed: a mapping"),  # type: ignore[arg-type]
        ("inspect", lambda: Findings(remarks=(3,)), "an item of inspect.remarks: got 3"),  # type: ignore[arg-type]
        ("inspect", lambda: Findings(rows={"train": math.nan}), "inspect.rows['train']: got nan"),  # type: ignore[dict-item]
        ("inspect", lambda: Findings(keeps="x"), "inspect.keeps: got 'x'"),  # type: ignore[arg-type]
        ("recipe", lambda: None, "recipe: got None"),
        ("site", lambda: Site(8.5, 8), "site.d_in: got 8.5"),  # type: ignore[arg-type]
        ("site", lambda: Site(-1, -1), "a site of -1 and -1 values"),
        ("bases", lambda: [3], "an item of bases: got 3"),
    ],
)
def test_an_answer_of_wrong_types_is_the_plugins_fault(what: str, answer: Any, words: str) -> None:
    with pytest.raises(PluginError) as caught:
        ask(Registered(DATASET, "theirs", "1", "theirs"), what, answer)
    assert words in str(caught.value)
    assert str(caught.value).startswith("mine of theirs 1: ")


def test_an_answer_may_be_a_generator() -> None:
    problem = Problem("path", "not there")
    assert ask(Registered(DATASET, "theirs", "1", "theirs"), "check", listing, problem) == (problem,)
