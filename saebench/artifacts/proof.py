"""Files that prove themselves: JSON that holds its own digest, and files whose digest another file holds.

Whatever is read here is what was written, or `Damaged` says which file is not and how. Nothing here waits on a FIFO.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from saebench.api.errors import Damaged, MachineError
from saebench.base.canonical import canonical_json, digest

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a path that nothing is behind."""


def kind_of(path: Path) -> str:
    """`a folder`, `a named pipe`, ...: what has a name that is taken."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere"
    except OSError:  # a link to itself, or behind what cannot be entered
        return "a link that cannot be followed"
    return next((kind for test, kind in _KINDS if test(mode)), "something else")


def in_the_way(folder: Path) -> str | None:
    """What is no folder among a path and those above it, as in `checkpoints: a file has the name of a folder`."""
    for part in (*reversed(folder.parents), folder):
        if os.path.lexists(part) and not part.is_dir():
            return f"{part}: {kind_of(part)} has the name of a folder"
    return None


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file of ours for reading.

    Raises:
        Damaged: It is missing, or something else than a file has its name.
        MachineError: The machine refuses to read it.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a FIFO would wait for its writer
            raise Damaged(f"{path}: damaged ({kind_of(path)} has the name of a file)")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        if error.errno in NOT_THERE:
            if os.path.lexists(path):
                raise Damaged(f"{path}: damaged ({kind_of(path)} has the name of a file)") from error
            blocked = in_the_way(path.parent)
            raise Damaged(f"{path}: missing{f' ({blocked})' if blocked else ''}") from error
        raise refused_reading(path, error) from error


def refused_reading(path: Path, error: OSError) -> MachineError:
    """The error of a file or folder of ours that is there and cannot be read."""
    return MachineError(
        f"{path}: the machine refuses to read it ({os.strerror(error.errno or 0)}). Make it readable, then run the "
        "same command again."
    )


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file of ours.

    Raises:
        Damaged, MachineError: As `opened`.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prove(path: Path, sha256: object) -> None:
    """Nothing, where the file has this digest.

    Raises:
        Damaged: It is missing, or was changed after it was written.
        MachineError: The machine refuses to read it.
    """
    if digest_of(path) != sha256:
        raise Damaged(f"{path}: damaged (its sha256 is not the one that was written down)")


def sealed(content: Mapping[str, Any], seal: str) -> dict[str, Any]:
    """The content as JSON holds it, with its own digest under the key `seal` (an older one there is replaced)."""
    plain: dict[str, Any] = json.loads(canonical_json({key: content[key] for key in content if key != seal}))
    return {**plain, seal: digest(plain)}


def read_json(path: Path) -> Any:
    """The JSON value in a file of ours.

    Raises:
        Damaged: It is missing, or no JSON.
        MachineError: The machine refuses to read it.
    """
    with opened(path) as file:
        data = file.read()
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path}: damaged (not readable as JSON: {error})") from error


def check_seal(path: Path, value: Mapping[str, Any], seal: str) -> None:
    """Nothing, where `value`, read from `path`, has the digest that it holds.

    Raises:
        Damaged: It was changed after it was written.
    """
    try:
        proven = value.get(seal) == digest({key: value[key] for key in value if key != seal})
    except (ValueError, RecursionError):  # not a number that we write
        proven = False
    if not proven:
        raise Damaged(f"{path}: damaged (its content does not have the {seal} that it holds)")


def read_sealed(path: Path, seal: str) -> dict[str, Any]:
    """What `sealed` made and a file holds, the digest included.

    Raises:
        Damaged: It is missing, no such file, or was changed after it was written.
        MachineError: The machine refuses to read it.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise Damaged(f"{path}: damaged (no JSON object)")
    check_seal(path, value, seal)
    return value
