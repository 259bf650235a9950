"""How many ancestors a cell has among some."""

from __future__ import annotations

from types import SimpleNamespace

from saebench.cells.generations import generations


def test_ancestors_count_that_are_among_the_cells():
    parents = {"a": None, "b": "a", "c": "elsewhere", "d": "b"}
    cells = [SimpleNamespace(cell_id=name, parent=parent) for name, parent in parents.items()]
    assert generations(cells) == {"a": 0, "b": 1, "c": 0, "d": 2}
