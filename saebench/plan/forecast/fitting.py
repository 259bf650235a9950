"""What would fit where a plan does not: smaller plans are tried, and their memory is predicted as that of the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce

from saebench.api.errors import SaebenchError
from saebench.cells.cell import ArchitectureUse, Cell
from saebench.host.build import cell_cost
from saebench.plan.forecast.memory import Memory, Needs

SMALLEST_BATCH, SMALLEST_WIDTH, SMALLEST_BLOCK = 32, 64, 65_536
Change = tuple[str, Callable[[Needs], Needs]]
"""What is written into the suite, and what a plan becomes by it."""
CellChange = tuple[str, Callable[[Cell], Cell | None]]
"""The same where it changes each cell by itself: None where the cell is left out."""


def fitting(needs: Needs, need: Callable[[Memory], int], room: int) -> list[tuple[str, int]]:
    """Changes of a suite with which it fits, each with what is then needed; all of them together where none does alone.

    Args:
        needs: Of the plan that does not fit.
        need: The bytes of a `Memory` that must fit.
        room: Bytes that there are.

    Returns:
        `("train.batch: 1024", 8_000_000_000)`; empty where nothing of what is tried fits.
    """
    ladders: list[list[Change]] = [list(_blocks(needs))]
    for make in (_precisions, _batches, _widths, _seeds):
        ladders.append([(name, partial(_changed, change=change)) for name, change in make(needs.cells)])

    def size(*changes: Change) -> int | None:
        try:
            return need(reduce(lambda made, change: change[1](made), changes, needs).memory())
        except SaebenchError:  # an architecture refuses the smaller config
            return None

    def first(before: Sequence[Change], ladder: Sequence[Change]) -> tuple[Change, int] | None:
        for change in ladder:
            taken = size(*before, change)
            if taken is not None and taken <= room:
                return change, taken
        return None

    alone = [found for ladder in ladders if (found := first((), ladder)) is not None]
    if alone:
        return [(change[0], taken) for change, taken in alone]
    before: list[Change] = []
    most = need(needs.memory())
    for ladder in ladders:
        if (found := first(before, ladder)) is not None:
            return [(" with ".join(name for name, _ in (*before, found[0])), found[1])]
        if ladder and (size(*before, ladder[-1]) or most) < (size(*before) or most):  # else it is of no use
            before.append(ladder[-1])
    return []


def _changed(needs: Needs, change: Callable[[Cell], Cell | None]) -> Needs:
    """The same plan with smaller cells; a cell that the change leaves out is in it no longer."""
    cells = {cell.cell_id: made for cell in needs.cells if (made := change(cell)) is not None}
    return replace(
        needs,
        cells=list(cells.values()),
        passes=[(cohorts, _kept(members, cells)) for cohorts, members in needs.passes],
        groups=[(group, _kept(members, cells)) for group, members in needs.groups],
        costs={cell_id: cell_cost(cell, needs.catalog) for cell_id, cell in cells.items()},
    )


def _kept(members: Sequence[Cell], cells: Mapping[str, Cell]) -> list[Cell]:
    return [cells[cell.cell_id] for cell in members if cell.cell_id in cells]


def _blocks(needs: Needs) -> Iterator[Change]:
    """Half of the largest block of rows that is shuffled in memory, and half of that."""
    block = max((cohort.shuffle for cohorts, _ in needs.passes for cohort in cohorts), default=0) // 2
    while block >= SMALLEST_BLOCK:

        def smaller(needs: Needs, most: int = block) -> Needs:
            passes = [
                ([replace(cohort, shuffle=min(cohort.shuffle, most)) for cohort in cohorts], members)
                for cohorts, members in needs.passes
            ]
            return replace(needs, passes=passes)

        yield f"activations.shuffle: {block}", smaller
        block //= 2


def _precisions(cells: Sequence[Cell]) -> Iterator[CellChange]:
    """Language models in half of the bytes."""
    if any(cell.model is not None and cell.model.load.dtype == "float32" for cell in cells):

        def halved(cell: Cell) -> Cell:
            if cell.model is None:
                return cell
            return replace(cell, model=replace(cell.model, load=replace(cell.model.load, dtype="bfloat16")))

        yield "models.dtype: bfloat16", halved


def _batches(cells: Sequence[Cell]) -> Iterator[CellChange]:
    """Half of the largest batch, and half of that."""
    batch = max((cell.train.batch for cell in cells), default=0) // 2
    while batch >= SMALLEST_BATCH:

        def smaller(cell: Cell, most: int = batch) -> Cell:
            return replace(cell, train=replace(cell.train, batch=min(cell.train.batch, most)))

        yield f"train.batch: {batch}", smaller
        batch //= 2


def _widths(cells: Sequence[Cell]) -> Iterator[CellChange]:
    """Half of the largest width, and half of that."""
    width = max((cell.d_sae for cell in cells), default=0) // 2
    while width >= SMALLEST_WIDTH:

        def narrower(cell: Cell, most: int = width) -> Cell:
            if cell.d_sae <= most:
                return cell
            base = _narrowed(cell.base, most) if cell.base is not None else None
            return replace(cell, d_sae=most, part=_narrowed(cell.part, most), base=base)

        yield f"d_sae: {width}", narrower
        width //= 2


def _narrowed(part: ArchitectureUse, most: int) -> ArchitectureUse:
    config = dict(part.config)
    if isinstance(config.get("d_sae"), int):
        config["d_sae"] = min(config["d_sae"], most)
    return replace(part, config=config)


def _seeds(cells: Sequence[Cell]) -> Iterator[CellChange]:
    """Half of the init seeds, and half of those: members of a group are in memory together."""
    seeds = sorted({cell.init_seed for cell in cells})
    count = len(seeds) // 2
    while count >= 2:

        def fewer(cell: Cell, kept: frozenset[int] = frozenset(seeds[:count])) -> Cell | None:
            return cell if cell.init_seed in kept else None

        yield f"seeds.init: {count} of {len(seeds)}", fewer
        count //= 2
