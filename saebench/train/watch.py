"""What a pass tells whoever watches it. Nothing that a watcher does changes what is trained."""

from __future__ import annotations

from saebench.cells.cell import Cell


class Watch:
    """Is told how a pass proceeds; override what is of interest.

    Attributes:
        wants_progress: Whether `progress` is called; the FVU it tells costs a little.
    """

    wants_progress = False

    def started(self, cell: Cell) -> None:
        """A cell begins training."""

    def resumed(self, cell: Cell, tokens: int) -> None:
        """A cell continues from a snapshot that holds this many tokens of its allotment."""

    def advanced(self, tokens: int) -> None:
        """Some cell took a step of so many tokens, or ended and so many of its allotment are left over."""

    def progress(self, cell: Cell, tokens: int, allotted: int, fvu: float | None, l0: float | None) -> None:
        """A cell made progress; called at most 20 times a cell."""

    def quality(self, cell: Cell, fvu: float | None, l0: float) -> None:
        """FVU and L0 of a cell's newest batch, whenever its trajectory has them: nothing is computed for this."""

    def say(self, line: str) -> None:
        """A line for people."""
