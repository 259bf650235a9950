"""What a killed run left half made in its folder, known by the exact names that saebench itself writes there.

Nothing else is ever touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from saebench.artifacts.atomic import finish_swap, parse_temporary, remove
from saebench.artifacts.layout import CHECKPOINTS, PROGRESS, RunFolder

_DIGEST = r"[0-9a-f]{16}"


@dataclass(frozen=True)
class _Written:
    """One folder of a run: how deep below it saebench writes, under which names, whole folders or files."""

    name: str
    depth: int
    names: str
    folders: bool = False
    below: str = r".+"
    """Names of its first folders."""


_WRITTEN = (
    _Written(".", 0, rf"plan\.json|{re.escape(PROGRESS)}"),
    _Written("records", 2, r".+-s\d+-[0-9a-f]{8}\.json"),
    _Written("groups", 2, r".+-[0-9a-f]{8}\.json"),
    _Written("arrays", 0, rf"(group-)?{_DIGEST}\.safetensors"),
    _Written("leaderboard", 0, r"(index\.html|README\.md|data\.json|chart\.svg)"),
    _Written(CHECKPOINTS, 0, _DIGEST, folders=True),
    _Written("snapshots", 0, _DIGEST, folders=True),
    _Written("activations", 0, _DIGEST, folders=True),
    _Written("cache", 1, r".+", below=_DIGEST),  # what a dataset keeps: it gives the names
    _Written("cache", 2, r".+", below=_DIGEST),
)


def sweep(run: RunFolder) -> None:
    """Brings back folders whose replacement was cut short, then removes temporary files and folders.

    The caller holds the lock.

    Links are neither followed nor removed, and nothing outside the folder is.

    Raises:
        MachineError: A folder cannot be brought back.
    """
    for written in _WRITTEN:
        names = re.compile(written.names)
        for place in _places(run.root / written.name, written.depth, written.below):
            for entry in _entries(place):
                made = parse_temporary(entry.name)
                if made is None or not names.fullmatch(made[0]):
                    continue
                name, kind = made
                if not (entry.is_dir if written.folders else entry.is_file)(follow_symlinks=False):
                    continue
                if kind == "tmp":
                    remove(place / entry.name)
                elif written.folders:
                    finish_swap(place / name)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:  # not there, or not readable: then nothing of ours can be swept
        return []


def _places(folder: Path, depth: int, names: str = r".+") -> Iterator[Path]:
    """The folder itself, or all folders `depth` levels below it, the first of such names; none through a link."""
    if folder.is_symlink():
        return
    if depth == 0:
        yield folder
        return
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False) and re.fullmatch(names, entry.name):
            yield from _places(folder / entry.name, depth - 1)
