from __future__ import annotations

from dataclasses import dataclass

from saebench.api import hookimpl
from saebench.execute.progress import PassWatch, has_observers
from saebench.host import Catalog
from saebench.host.discovery import new_manager


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
    with PassWatch([cell], catalog_with(observer, Broken()), print, shown=False) as watch:
        assert watch.wants_progress
        watch.started(cell)
        watch.progress(cell, 50, 100, 0.5, 4.0)
    assert observer.heard == [("started", "c"), ("c", 50, 100)]
    assert len(watch.errors["c"]) == 1
    assert "ValueError" in watch.errors["c"][0]
    assert watch.began["c"].startswith("20")


def test_progress_costs_nothing_where_nobody_listens():
    assert not has_observers(catalog_with(Broken()), "saebench_train_progress")
    assert not PassWatch([Cell("c", 1)], Catalog(), print, shown=False).wants_progress


def test_the_bar_shows_tokens_of_all_cells_and_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cells = [Cell("a", 1_000_000), Cell("b", 2_000_000)]
    with PassWatch(cells, Catalog(), print, shown=True) as watch:
        watch.resumed(cells[0], 500_000)
        watch.advanced(1_000_000)
        line = str(watch._bar)
    assert "training 2 cells:  50%" in line
    assert "1.50M/3.00M" in line
    assert len(line) <= 80
    capsys.readouterr()
