"""A terminal for tests: what stands on it after a program's bytes, and a program run under a pseudo terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

_MOVES = re.compile(r"\x1b\[(\d*)([AJK])|(\r)|(\n)|([^\x1b\r\n]+)")


class Terminal:
    """The lines of a screen; it knows what bars need: up, erase below, erase a line's rest, return, new line, wrap.

    Attributes:
        wrapped: Whether a line was ever wider than the terminal.
    """

    def __init__(self, columns: int) -> None:
        self.columns, self.wrapped = columns, False
        self.lines = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        at = 0
        for found in _MOVES.finditer(text):
            assert found.start() == at, f"not understood: {text[at : found.start()]!r}"
            at = found.end()
            number, move, back, down, words = found.groups()
            if move == "A":
                self._row -= int(number or 1)
                assert self._row >= 0
            elif move:
                self.lines[self._row] = self.lines[self._row][: self._column]
                if move == "J":
                    del self.lines[self._row + 1 :]
            elif back:
                self._column = 0
            elif down:
                self._row, self._column = self._row + 1, 0
                if self._row == len(self.lines):
                    self.lines.append("")
            else:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + words + line[self._column + len(words) :]
                self._column += len(words)
                self.wrapped |= self._column > self.columns
        assert at == len(text)


def run_in_terminal(program: str, columns: int, folder: Path, environment: dict[str, str] | None = None) -> str:
    """All that a Python program writes to a terminal of so many columns."""
    path = folder / "program.py"
    path.write_text(program, encoding="utf-8")
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    env |= {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"} | (environment or {})
    with subprocess.Popen([sys.executable, path], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65_536)
            except OSError:  # the program has ended
                break
            if not piece:
                break
            written += piece
        assert process.wait() == 0, written.decode()
    os.close(ours)
    return written.decode()
