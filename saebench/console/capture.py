"""What libraries print, log and warn while bars are shown: whole lines above the bars, each once, and no bars."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

KEPT_CHARACTERS = 100_000
"""An unfinished line of others is not kept longer than this."""


class _Lines(io.TextIOBase):
    """A stream whose whole lines are said once.

    Handlers of `logging` may keep it: after the end it passes on what it gets.
    """

    def __init__(self, say: Callable[[str], None], say_once: Callable[[str], bool], outer: TextIO | None) -> None:
        self._say, self._say_once, self._ended = say, say_once, False
        self._outer, self._rest, self._repeated = outer, "", False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._outer, "encoding", None) or "utf-8"

    def fileno(self) -> int:
        if self._outer is None:
            raise io.UnsupportedOperation("fileno")
        return self._outer.fileno()

    def isatty(self) -> bool:
        return False  # libraries should not move the cursor

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        if self._ended and self._outer is not None:
            self._outer.flush()

    def write(self, text: str) -> int:
        if self._ended:
            return self._outer.write(text) if self._outer is not None else len(text)
        before = "" if "\r" in self._rest else self._rest  # a bar is redrawn by a write of its own
        *lines, rest = (before + text.replace("\r\n", "\n")).split("\n")
        self._rest = rest[-KEPT_CHARACTERS:]
        for line in lines:
            self._line(line)
        return len(text)

    def _line(self, line: str) -> None:
        """A line that was redrawn is a bar. A repeated line goes with the indented ones below it."""
        if "\r" in line or not line.strip() or self._ended:
            return
        if line[0].isspace():
            if not self._repeated:
                self._say(line)
        elif line.startswith("Traceback "):
            self._repeated = False
            self._say(line)
        else:
            self._repeated = not self._say_once(line)

    def end(self) -> None:
        """Says what is left."""
        self._line(self._rest)
        self._ended = True


@contextmanager
def captured(say: Callable[[str], None], say_once: Callable[[str], bool], *, outputs: bool) -> Iterator[None]:
    """Leads standard error and warnings to a console, and with `outputs` standard output.

    Args:
        say, say_once: The console's.
        outputs: Whether standard output is led there too.
    """
    errors = _Lines(say, say_once, sys.stderr)
    shown = warnings.showwarning

    def warn(message: Warning | str, category: type[Warning], *_where: Any, **_more: Any) -> None:
        say_once(f"warning: {category.__name__}: {' '.join(str(message).split())}")

    with ExitStack() as stack:
        stack.callback(errors.end)
        stack.enter_context(redirect_stderr(errors))
        if outputs:
            prints = _Lines(say, say_once, sys.stdout)
            stack.callback(prints.end)
            stack.enter_context(redirect_stdout(prints))
        warnings.showwarning = warn
        try:
            yield
        finally:
            if warnings.showwarning is warn:
                warnings.showwarning = shown
