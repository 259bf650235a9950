"""Where a console's state is shown: two lines that are redrawn on a terminal, whole lines elsewhere.

A display that can no longer be written to falls silent: what is shown never decides what becomes of the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from textwrap import wrap
from typing import TextIO

from saebench.console.render import View, clock_words, log_line, terminal_lines

LINE_S = 9.5
"""A silence after which a line is written off a terminal: so that none lasts ten seconds."""
WIDTH = 80


class Display:
    """Shows nothing; the others show more."""

    def say(self, line: str) -> None:
        """A whole line that stays."""

    def opened(self, view: View) -> None:
        """A phase began."""

    def cell(self, line: str, view: View) -> None:
        """A cell of a run has ended."""

    def show(self, view: View) -> None:
        """The state at this instant; asked for several times a second."""

    def close(self) -> None:
        """Nothing more comes."""


class _Writer(Display):
    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the reader went away, or the file was closed
            self._stream = None


class Lines(_Writer):
    """A file, a pipe or a dumb terminal: a line at each kind of phase, and one at least every `LINE_S` seconds."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        super().__init__(stream)
        self._clock = clock
        self._last_at, self._last_kind = clock(), ""

    def say(self, line: str) -> None:
        """Writes it."""
        self._write(f"{line}\n")
        self._last_at = self._clock()

    def opened(self, view: View) -> None:
        """A line where the kind of phase changes; cells tell of themselves when they end."""
        if view.phase is not None and view.phase.kind != self._last_kind:
            self._last_kind = view.phase.kind
            self.say(f"[{clock_words(view.elapsed)}] {view.phase.label}")

    def cell(self, line: str, view: View) -> None:
        """A line."""
        self.say(f"[{clock_words(view.elapsed)}] {view.progress}: {line}")

    def show(self, view: View) -> None:
        """A line after a silence."""
        if self._clock() - self._last_at >= LINE_S:
            self.say(log_line(view))


class Screen(_Writer):
    """A terminal: the lines of the state are below all that was said, and are rewritten in place."""

    def __init__(self, stream: TextIO, columns: Callable[[], int] | None = None) -> None:
        super().__init__(stream)
        self._columns = columns or (lambda: _columns(stream))
        self._ascii = (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") != "utf8"
        self._before: list[str] = []

    def say(self, line: str) -> None:
        """Writes it above the bars."""
        before, self._before = self._before, []
        # broken between words, as tables and pages are; a path or another long word stays whole
        rows = wrap(line, self._columns() - 1, break_long_words=False, break_on_hyphens=False) or [""]
        self._write(_erase(before) + "\n".join([*rows, ""]) + self._lines(before))

    def opened(self, view: View) -> None:
        """Draws at once: some libraries keep the interpreter to themselves, and the thread that draws waits."""
        self.show(view)

    def show(self, view: View) -> None:
        """Draws the bars, where they changed."""
        lines = terminal_lines(view, self._columns() - 1, ascii=self._ascii)  # the last column would wrap
        if lines != self._before:
            self._write(_erase(self._before) + self._lines(lines))

    def close(self) -> None:
        """Takes the bars away."""
        self._write(_erase(self._before))
        self._before = []

    def _lines(self, lines: list[str]) -> str:
        self._before = lines
        return "\n".join(lines)


def _erase(lines: list[str]) -> str:
    """From the end of these lines to the beginning of the first, and all below away."""
    return (f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else "") + "\r\x1b[J" if lines else ""


def _columns(stream: TextIO) -> int:
    """Asked for anew at each draw, so that a terminal may change its size."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):
        return WIDTH


def display_of(stream: TextIO | None, clock: Callable[[], float]) -> Display:
    """A screen where the stream is a terminal that can move its cursor; nothing where there is no stream (`2>&-`)."""
    try:
        if stream is None:
            return Display()
        terminal = stream.isatty()
    except ValueError:  # it is closed
        return Display()
    return Screen(stream) if terminal and os.environ.get("TERM") not in (None, "", "dumb") else Lines(stream, clock)
