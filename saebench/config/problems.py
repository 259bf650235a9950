"""Everything wrong with a suite, collected and reported at once, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from saebench.api.errors import SuiteError
from saebench.base.text import one_line, shown

MOST_LINES = 50
Path = tuple[str | int, ...]
"""A place in a suite: `("entries", 2, "config", "k")`."""


@dataclass(frozen=True)
class Position:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


Marks = Mapping[Path, Position]


def format_path(path: Sequence[str | int]) -> str:
    """`entries[2].config.k`."""
    text = ""
    for part in path:
        name = part if isinstance(part, int) else shown(part if len(part) <= 60 else part[:57] + "...")
        text += f"[{name}]" if isinstance(part, int) else f".{name}" if text else str(name)
    return text


def position(marks: Marks, path: Sequence[str | int]) -> Position:
    """Position of `path`, or of the nearest thing around it that the file has."""
    for end in range(len(path), -1, -1):
        found = marks.get(tuple(path[:end]))
        if found is not None:
            return found
    return Position("suite", 1)


def show(value: Any) -> str:
    """A value as a reader of the file knows it, cut to one short piece."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = repr(value[:60]) if len(value) > 60 else repr(value)
    elif isinstance(value, Mapping):
        text = "{" + ", ".join(f"{show(str(key))[1:-1]}: {show(item)}" for key, item in islice(value.items(), 20)) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in islice(value, 30)) + "]"
    else:
        text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Problems:
    """Collects problem lines; `stop` raises them as one `SuiteError`. Equal lines are kept once."""

    def __init__(self, where: Callable[..., str]) -> None:
        self._where = where
        self._lines: dict[str, None] = {}
        self._more = 0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, path: Sequence[str | int], message: str) -> None:
        """A problem at `path`: `file:line entries[2].config.k: message`."""
        label = format_path(path)
        self.line(f"{self._where(*path)}{' ' + label if label else ''}: {message}")

    def line(self, text: str) -> None:
        """A line that already says where. After `MOST_LINES` the rest is counted."""
        text = one_line(text)
        if text not in self._lines and len(self._lines) >= MOST_LINES:
            self._more += 1
        else:
            self._lines[text] = None

    def take(self, error: SuiteError, path: Sequence[str | int] | None = None) -> None:
        """The lines of another error; with `path`, prefixed by its position."""
        for text in str(error).splitlines():
            if path is None:
                self.line(text)
            else:
                self.add(path, text)

    def lines(self) -> list[str]:
        """All of them; after `MOST_LINES` how many more there are."""
        return [*self._lines, *([f"... and {self._more:,} more problems."] if self._more else [])]

    def stop(self) -> None:
        """Raises `SuiteError` when there is any problem."""
        if self._lines:
            raise SuiteError("\n".join(self.lines()))
