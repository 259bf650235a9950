"""Cohorts: cells that read the same activations in the same batches, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from saebench.base.canonical import digest
from saebench.cells.cell import Cell
from saebench.cells.generations import generations
from saebench.cells.plan import ActivationUse, Cohort


def order_cells(cells: Sequence[Cell], activations: ActivationUse) -> tuple[list[Cell], list[Cohort]]:
    """Cells cohort by cohort, parents before children.

    A suite may go back and forth (A on docs, its child on samples, a grandchild on docs again), so that two cohorts
    would each wait for the other. Then a cohort is cut into stages by the depth of its cells, each with its own key.
    """
    try:
        ordered = _cohort_order(cells)
    except CycleError:
        cells = _staged(cells)
        ordered = _cohort_order(cells)
    by_key: dict[str, list[Cell]] = {key: [] for key in ordered}
    for cell in cells:
        by_key[cell.cohort].append(cell)
    after = _after(cells)
    cohorts = [
        Cohort(
            key=key,
            model=members[0].model,
            dataset=members[0].dataset,
            data_seed=members[0].data_seed,
            batch=members[0].train.batch,
            tokens=max(cell.tokens for cell in members),
            dtype=members[0].train.dtype,
            cells=tuple(cell.cell_id for cell in members),
            after=tuple(sorted(after[key], key=ordered.index)),
            d_in=members[0].d_in,
            shuffle=members[0].train.shuffle,
            activations=activations,
        )
        for key, members in by_key.items()
    ]
    return [cell for members in by_key.values() for cell in members], cohorts


def _after(cells: Sequence[Cell]) -> dict[str, set[str]]:
    cohort_of = {cell.cell_id: cell.cohort for cell in cells}
    after: dict[str, set[str]] = {cell.cohort: set() for cell in cells}
    for cell in cells:
        if cell.parent is not None and cohort_of[cell.parent] != cell.cohort:
            after[cell.cohort].add(cohort_of[cell.parent])
    return after


def _cohort_order(cells: Sequence[Cell]) -> list[str]:
    """Cohort keys, each after those it waits for, otherwise as they first appear; raises CycleError."""
    after = _after(cells)
    TopologicalSorter(after).prepare()
    order: dict[str, None] = {}

    def visit(key: str) -> None:
        if key not in order:
            for earlier in after:
                if earlier in after[key]:
                    visit(earlier)
            order[key] = None

    for key in after:
        visit(key)
    return list(order)


def _staged(cells: Sequence[Cell]) -> list[Cell]:
    """The same cells with cohort keys that name their depth: how many ancestors they have."""
    depth = generations(cells)
    return [
        replace(cell, cohort=digest({"cohort": cell.cohort, "stage": depth[cell.cell_id]}))
        if depth[cell.cell_id]
        else cell
        for cell in cells
    ]
