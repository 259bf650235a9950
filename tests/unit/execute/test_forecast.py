"""What a run says before it starts, and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from bare_records import bare_cell

from saebench.api.errors import MachineError
from saebench.artifacts import RunFolder, read_plan, write_plan, write_record
from saebench.config import load_suite
from saebench.execute import forecast
from saebench.execute.forecast import Forecast
from saebench.host import load_catalog
from saebench.lm.book import ModelBook
from saebench.measure.place import Place, Room
from saebench.plan import make_plan
from saebench.plan.forecast.rates import Rates, TrainingRate, training_key
from saebench.plan.print import format_bytes

SUITE = """
schema: 1
name: vectors
datasets:
  truth: {plugin: synthetic, d_in: 16, n_features: 32}
entries:
  - {name: topk, architecture: topk, dataset: truth, config: {d_sae: 32}, sweep: {k: [2, 4]}}
train: {batch: 64}
evaluation: {tokens: 500, density_tokens: 500}
budget: {tokens: %d}
"""


class Bench:
    """Makes plans of a small suite, and counts how often the machine is measured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.catalog, self.facts, self.calls = folder, load_catalog(), ModelBook(), 0
        self.run = RunFolder(folder / "run")
        self.run.root.mkdir(parents=True)

    def measure(self, cells, datasets):
        self.calls += 1
        return Rates("measured", {"cpu": "one"}, {training_key(cell): TrainingRate(0.0, 1.0) for cell in cells})

    def forecast(self, tokens: int = 1000) -> Forecast:
        path = self.folder / "s.yaml"
        path.write_text(SUITE % tokens)
        plan = make_plan(load_suite(path), self.catalog, facts=self.facts)
        return Forecast(plan, self.run, self.catalog, self.facts, Place("cpu"), self.measure)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_short_run_goes_by_the_assumption(bench: Bench) -> None:
    made = bench.forecast()
    first, second = made.lines(made.plan.cells, False)
    assert bench.calls == 0
    assert first.startswith("predicted: ")
    assert "disk" in first and "memory about" in first
    assert "nothing was measured" in second


def test_a_long_run_is_measured_and_the_plan_says_so(bench: Bench) -> None:
    made = bench.forecast(tokens=50_000_000)
    assert bench.calls == 1
    assert made.plan.estimate.basis["source"] == "measured"
    assert made.plan.estimate.phases["training"] == pytest.approx(2 * 781_250, rel=1e-3)


def test_only_what_is_left_is_predicted(bench: Bench) -> None:
    made = bench.forecast()
    one, other = made.plan.cells
    for cell, status in ((one, "ok"), (other, "failed")):
        path = bench.run.record(cell.suite, cell.entry, cell.record_name)
        write_record(path, bare_cell(cell.cell_id, cell.score_id, status))
    assert list(made.lines(made.plan.cells, False)) == []
    assert len(list(made.lines(made.plan.cells, True))) == 2


def test_a_disk_that_is_too_small_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench.forecast()
    usage = namedtuple("usage", "total used free")
    need = made.plan.estimate.disk_bytes
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, need))
    assert list(made.lines(made.plan.cells, False))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, need - 1))
    with pytest.raises(
        MachineError,
        match=r"\(activations .*, checkpoints .*, records .*, pages .*, snapshots .*\), "
        r"but only .* --out or ask for fewer tokens\.$",
    ):
        list(made.lines(made.plan.cells, False))
    # there is no model to be read live, and without a token the pages would still not fit
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, 1000))
    with pytest.raises(MachineError, match=r"Free some space or choose another folder with --out\.$"):
        list(made.lines(made.plan.cells, False))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 0, need - 1))
    # what is stored already needs no space
    store = bench.run.root / "activations" / "a" / "x.bin"
    store.parent.mkdir(parents=True)
    store.write_bytes(bytes(1000))
    assert list(made.lines(made.plan.cells, False))


def in_memory(made: Forecast) -> int:
    made._room = Room(10**12, 10**12, "a large machine")
    return made._estimate(made.plan.cells).memory_bytes


def test_too_little_memory_is_told(bench: Bench) -> None:
    made = bench.forecast()
    need = in_memory(made)
    made._room = Room(need, need, "this machine")
    assert not list(made.lines(made.plan.cells, False))[-1].startswith("warning")
    made._room = Room(need - 1, 10 * need, "this machine")
    *_, line = made.lines(made.plan.cells, False)
    assert line.startswith("warning: the plan needs ") and "MB of memory on this machine, but" in line
    assert "(interpreter 300.0 MB, training " in line


def test_a_card_is_told_what_is_on_it(bench: Bench) -> None:
    """The codes that a group compares are in the host's memory: they are in no list of a card's."""
    made = bench.forecast()
    in_memory(made)
    need = made.plan.estimate.device_memory_bytes
    made._room = Room(need - 1, 10 * need, "a card", on_card=True)
    *_, line = made.lines(made.plan.cells, False)
    listed = line.partition("(")[2].partition(";")[0]
    assert "interpreter" not in listed and "kernels" not in listed
    assert f"scoring {format_bytes(need)}" in listed  # vectors have no model: the largest phase is all


def test_the_first_estimate_stays(bench: Bench) -> None:
    made = bench.forecast()
    said: list[str] = []
    assert not made.is_written(said.append)
    write_plan(bench.run, {**made.plan.to_json(), "estimate": {"seconds": random.random()}})
    assert made.is_written(said.append)
    data = read_plan(bench.run)
    write_plan(bench.run, {**data, "cells": data["cells"][:1]})
    assert not made.is_written(said.append)
    assert said == []
    write_plan(bench.run, {**data, "suite": "another"})
    assert not made.is_written(said.append)
    assert said.pop().startswith(f"{bench.run.plan}: was the plan of suite 'another', and is that of ")
    bench.run.plan.write_text(json.dumps(data))
    assert not made.is_written(said.append)
    (line,) = said
    assert line.startswith(f"{bench.run.plan}: damaged (") and line.endswith("It is written again")
    assert forecast.LONG_S > 0


def test_memory_that_no_machine_has_is_refused(bench: Bench) -> None:
    made = bench.forecast()
    need = in_memory(made)
    for room in (Room(need // 2 - 1, 10 * need, "this machine"), Room(need - 1, need - 1, "a card")):
        made._room = room
        with pytest.raises(MachineError, match=f"the plan needs .* of memory on {room.of}, but .* fit"):
            list(made.lines(made.plan.cells, False))
