"""How many parents lie between a cell and one that starts fresh."""

from __future__ import annotations

from collections.abc import Iterable

from saebench.cells.cell import Cell


def generations(cells: Iterable[Cell]) -> dict[str, int]:
    """By `cell_id`, how many ancestors a cell has among `cells`, which come parents first."""
    depth: dict[str, int] = {}
    for cell in cells:
        depth[cell.cell_id] = depth[cell.parent] + 1 if cell.parent is not None and cell.parent in depth else 0
    return depth
