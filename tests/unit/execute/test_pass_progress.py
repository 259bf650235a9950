from __future__ import annotations

from dataclasses import dataclass

import pytest

from saebench.api import hookimpl
from saebench.console import Console
from saebench.execute import pass_progress
from saebench.execute.pass_progress import PassWatch, has_observers
from saebench.host import Catalog
from saebench.host.discovery import new_manager


@pytest.fixture
def shown(monkeypatch):
    """What a console shows of the phases that are open."""
    console = Console()
    monkeypatch.setattr(pass_progress.console, "phase", console.phase)
    return console.view


@dataclass(frozen=True)
class Cell:
    cell_id: str
    tokens: int
    label: str = "topk k4 s0"


class Observer:
    def __init__(self):
        self.heard = []

    @hookimpl
    def saebench_cell_started(self, cell):
        self.heard.append(("started", cell["cell_id"]))

    @hookimpl
    def saebench_train_progress(self, cell_id, tokens, allotted):
        self.heard.append((cell_id, tokens, allotted))


class Broken:
    @hookimpl
    def saebench_cell_started(self, cell):
        raise ValueError("no")


def catalog_with(*plugins):
    manager = new_manager()
    for plugin in plugins:
        manager.register(plugin)
    return Catalog(manager=manager)


def test_observers_hear_of_starts_and_progress():
    observer, cell = Observer(), Cell("c", 100)
    with PassWatch([cell], catalog_with(observer, Broken()), print) as watch:
        assert watch.wants_progress
        watch.started(cell)
        watch.progress(cell, 50, 100, 0.5, 4.0)
    assert observer.heard == [("started", "c"), ("c", 50, 100)]
    assert len(watch.errors["c"]) == 1
    assert "ValueError" in watch.errors["c"][0]
    assert watch.began["c"].startswith("20")


def test_progress_costs_nothing_where_nobody_listens():
    assert not has_observers(catalog_with(Broken()), "saebench_train_progress")
    assert not PassWatch([Cell("c", 1)], Catalog(), print).wants_progress


def test_a_pass_is_a_phase_over_the_tokens_of_all_its_cells(shown):
    cells = [Cell("a", 1_000_000), Cell("b", 2_000_000, "jumprelu l0 8 s1")]
    with PassWatch(cells, Catalog(), print) as watch:
        watch.resumed(cells[0], 500_000)
        watch.advanced(1_000_000)
        watch.quality(cells[1], 0.3127, 8.04)
        phase = shown().phase
    assert phase.label == "training 2 cells"
    assert phase.counts == "1.50M/3.00M tok"
    assert phase.share == 0.5
    assert phase.note == "jumprelu l0 8 s1 fvu 0.313 l0 8.04"


def test_one_cell_is_called_by_its_name(shown):
    with PassWatch([Cell("a", 100)], Catalog(), print) as watch:
        watch.quality(Cell("a", 100), None, 4.0)
        assert shown().phase.label == "training topk k4 s0"
        assert shown().phase.note == "fvu - l0 4"
