"""A state of the work as text: bars that keep their brackets however narrow the terminal is, and lines for a log."""

from __future__ import annotations

from dataclasses import dataclass

from tqdm.std import Bar, tqdm  # type: ignore[attr-defined]
from tqdm.utils import disp_len

SHORTEST_LABEL, SHORTEST_BAR, LONGEST_BAR = 17, 8, 30
clock_words = tqdm.format_interval


@dataclass(frozen=True)
class PhaseView:
    """One phase. `total` is None where it is not known."""

    kind: str
    detail: str
    n: float
    total: float | None
    unit: str
    elapsed: float
    left: float | None
    note: str

    @property
    def label(self) -> str:
        """`scoring topk k8 s0`."""
        return f"{self.kind} {self.detail}".rstrip()

    @property
    def share(self) -> float | None:
        """Of its total."""
        return min(1.0, self.n / self.total) if self.total else None

    @property
    def counts(self) -> str:
        """`405k/900k tok`."""
        if not self.unit or (self.total is None and not self.n):
            return ""
        return f"{_size(self.n)}{f'/{_size(self.total)}' if self.total is not None else ''} {self.unit}"


@dataclass(frozen=True)
class View:
    """All that is shown at one instant: the run, and the innermost open phase."""

    title: str
    cells: tuple[int, int] | None
    share: float | None
    elapsed: float
    left: float | None
    phase: PhaseView | None

    @property
    def counts(self) -> str:
        """`12/54 cells`."""
        return f"{self.cells[0]}/{self.cells[1]} cells" if self.cells else ""

    @property
    def progress(self) -> str:
        """`12/54 cells, 23%, 04:20 left`."""
        share = f"{int(100 * self.share)}%" if self.share is not None else ""
        left = f"{clock_words(self.left)} left" if self.left is not None else ""
        return ", ".join(part for part in (self.counts, share, left) if part)


def terminal_lines(view: View, width: int, *, ascii: bool) -> list[str]:
    """One line of a run, where one was announced, and one of its phase; none is wider than `width`."""
    lines = []
    if view.share is not None:
        lines.append(bar_line(view.title, view.share, [view.counts], _clock(view.elapsed, view.left), width, ascii))
    if view.phase is not None:
        phase = view.phase
        clock = _clock(phase.elapsed, phase.left if phase.share is not None else None)
        lines.append(bar_line(phase.label, phase.share, [phase.note, phase.counts], clock, width, ascii))
    return lines


def bar_line(label: str, share: float | None, extras: list[str], clock: str, width: int, ascii: bool) -> str:
    """`label  45%|####    | extras [00:12<00:15]`.

    The label is shortened first, then extras are left out; the rest is whole.
    """
    tail = f"[{clock}]"
    fixed = len(tail) + 1 + (len("100%||") + 1 + SHORTEST_BAR if share is not None else 0)
    room = width - fixed - min(SHORTEST_LABEL, disp_len(label))
    kept = []
    for extra in extras:
        if extra and disp_len(extra) < room:
            kept.append(extra)
            room -= disp_len(extra) + 1
    tail = " ".join([*kept, tail])
    if share is None:
        return shorten(label, max(0, width - disp_len(tail) - 1), ascii) + " " + tail
    label = shorten(label, max(0, width - disp_len(tail) - 8 - SHORTEST_BAR), ascii)
    bar_width = max(1, min(LONGEST_BAR, width - disp_len(label) - disp_len(tail) - 8))
    bar = format(Bar(share, default_len=bar_width, charset=Bar.ASCII if ascii else Bar.UTF))
    return f"{label} {int(100 * share):3d}%|{bar}| {tail}"


def log_line(view: View) -> str:
    """The same on one line of a file."""
    parts = [view.progress] if view.progress else []
    if view.phase is not None:
        phase = view.phase
        facts = [f"{int(100 * phase.share)}%"] if phase.share is not None else []
        facts += [fact for fact in (phase.counts, phase.note) if fact]
        facts += [f"for {clock_words(phase.elapsed)}"] if phase.elapsed >= 1 else []
        facts += [f"{clock_words(phase.left)} left"] if phase.left is not None and view.left is None else []
        parts.append(phase.label + (f": {', '.join(facts)}" if facts else ""))
    return f"[{clock_words(view.elapsed)}] {'; '.join(parts) or 'working'}"


def shorten(text: str, width: int, ascii: bool = False) -> str:
    """The text, cut to `width` columns with a mark where it was cut."""
    if disp_len(text) <= width:
        return text
    mark = "~" if ascii else "…"
    while text and disp_len(text) + 1 > width:
        text = text[:-1]
    return text + mark if width > 0 else ""


def _clock(elapsed: float, left: float | None) -> str:
    return clock_words(elapsed) + (f"<{clock_words(left)}" if left is not None else "")


def _size(count: float) -> str:
    return str(tqdm.format_sizeof(count)) if count >= 1000 else f"{count:g}"
