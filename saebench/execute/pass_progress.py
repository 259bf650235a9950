"""What people and observers see while a pass trains: one bar over the tokens of all its cells, and the hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

from saebench import console
from saebench.cells.cell import Cell
from saebench.console.render import shorten
from saebench.host import Catalog
from saebench.measure import machine
from saebench.train.watch import Watch

LABEL_WIDTH = 20
"""Columns of a cell's name beside the bar of its pass."""


def has_observers(catalog: Catalog, hook: str) -> bool:
    """True when some plugin implements an observer hook."""
    return catalog.manager is not None and bool(getattr(catalog.manager.hook, hook).get_hookimpls())


class PassWatch(Watch):
    """Shows one pass as a phase, and tells the observers of its cells.

    Args:
        cells: The cells to be trained.
        catalog: Its observers are told of every cell.
        say: Prints a line for people above the bars.

    Attributes:
        began: When each cell began, by `cell_id`.
        errors: What observers of its start and its progress raised, by `cell_id`.
    """

    def __init__(self, cells: Sequence[Cell], catalog: Catalog, say: Callable[[str], None]) -> None:
        self._catalog, self._say = catalog, say
        self.wants_progress = has_observers(catalog, "saebench_train_progress")
        self.began: dict[str, str] = {}
        self.errors: dict[str, list[str]] = {}
        self._many = len(cells) > 1
        total = sum(cell.tokens for cell in cells)
        label = f"{len(cells)} cells" if len(cells) > 1 else cells[0].label if cells else ""
        self._phase = console.phase("training", label, total=total, unit="tok", amount=total)

    def __enter__(self) -> PassWatch:
        self._phase.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._phase.close()

    def started(self, cell: Cell) -> None:
        """Tells the observers that a cell begins."""
        self.began[cell.cell_id] = machine.now()
        self.errors[cell.cell_id] = self._catalog.observe("saebench_cell_started", cell=asdict(cell))

    def resumed(self, cell: Cell, tokens: int) -> None:
        """Moves the bar by what an earlier run trained; it does not count in the speed."""
        self._phase.resumed(tokens)

    def advanced(self, tokens: int) -> None:
        """Moves the bar by what was trained."""
        self._phase.update(tokens)

    def quality(self, cell: Cell, fvu: float | None, l0: float) -> None:
        """Shows FVU and L0 of a cell beside the bar."""
        which = f"{shorten(cell.label, LABEL_WIDTH)} " if self._many else ""
        self._phase.note = f"{which}fvu {'-' if fvu is None else f'{fvu:.3f}'} l0 {l0:.3g}"

    def progress(self, cell: Cell, tokens: int, allotted: int, fvu: float | None, l0: float | None) -> None:
        """Tells the observers how far a cell is. An error that comes again and again is noted once."""
        noted = self.errors[cell.cell_id]
        found = self._catalog.observe(
            "saebench_train_progress", cell_id=cell.cell_id, tokens=tokens, allotted=allotted, fvu=fvu, l0=l0
        )
        noted += [line for line in found if line not in noted]

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self._say(line)
