"""Text that others wrote, made fit for a terminal, a page or a record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from saebench.base.paths import home

_KEPT = "\n\t\u00a0\u202f"
_ROOT = r"(?:file://)?(?:~?/|~\\|[A-Za-z]:[/\\])"
_PART = r"[^\s'\"`<>()\[\]{},;|:/\\]"
_ABSOLUTE = re.compile(rf"(?<![\w./\\~$%-])(?!//){_ROOT}(?:{_PART}+[/\\]+)*({_PART}*)")
_QUOTED = re.compile(rf"(['\"]){_ROOT}[^\n'\"]*?([^\n'\"/\\]*)[/\\]*\1")


def shown(text: str) -> str:
    r"""`text` as it may be printed: what moves a cursor or hides or turns text is shown (`\x1b`, `\u202e`, `\ud800`).

    Line breaks and tabs stay; `one_line` takes these out too.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else _escape(char) for char in text)


def one_line(text: str, limit: int = 1000) -> str:
    """`text` on one line of at most `limit` characters, fit to be printed."""
    line = shown(" ".join(text[: 4 * limit].split()))
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def without_folders(text: str) -> str:
    """`text` with every absolute path cut to its last part: what is published names no folders of a machine."""
    user = str(home() or "")  # a user's name may hold blanks, which end a path where no quotes do
    if len(user) > 1:
        text = text.replace(user, "~")
    text = _QUOTED.sub(lambda match: match[1] + match[2] + match[1], text)
    return _ABSOLUTE.sub(lambda match: match[1] or match[0], text)


def published(value: Any) -> Any:
    """A JSON value in which every text that is an absolute path is its last part: the same on every machine."""
    if isinstance(value, Mapping):
        return {key: published(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [published(item) for item in value]
    if not isinstance(value, str):
        return value
    for path in (PurePosixPath(value), PureWindowsPath(value)):
        if path.is_absolute() or (value.startswith("~") and len(path.parts) > 1):
            return path.name or value
    return value
