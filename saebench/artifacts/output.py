"""Files that a person names: written where saebench made what is there, or nothing is there yet; else refused by name.

Every kind of file holds a mark of who made it. A link stays a link, and what is no regular file is written through.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from saebench.api.errors import SuiteError
from saebench.artifacts.atomic import machine_errors, write_bytes

_HEAD_BYTES = 1 << 22
"""A mark is looked for in so many bytes."""
_THROUGH = (stat.S_ISFIFO, stat.S_ISCHR)


def check_output(path: Path, mark: re.Pattern[bytes]) -> None:
    """Nothing, where a file may be written; changes nothing.

    Args:
        path: The file.
        mark: What every such file that saebench made holds.

    Raises:
        SuiteError: Something that saebench did not make has this name.
        MachineError: It cannot be read.
    """
    with machine_errors(path):
        if not path.exists():
            if _real(path).is_symlink():
                raise SuiteError(f"{path}: a link that leads back to itself. Remove it, or choose another name.")
            return
        mode = path.stat().st_mode
        if any(kind(mode) for kind in _THROUGH):
            return
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a pipe"
            raise SuiteError(f"{path}: {what}. Choose another name.")
        if _standard_stream(path) is not None:
            return
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    if head and not mark.search(head):
        raise SuiteError(
            f"{path}: not a file that this command made, so it is not replaced. Move it away, or choose another name."
        )


def write_output(path: Path, data: bytes, mark: re.Pattern[bytes]) -> None:
    """Writes a file that a person named, whole or not at all; to a pipe, a device or a terminal as it comes.

    Raises:
        SuiteError: Something that saebench did not make has this name, or the pipe has no reader.
        MachineError: It cannot be written.
    """
    assert mark.search(data[:_HEAD_BYTES])
    check_output(path, mark)
    if (stream := _standard_stream(path)) is not None:
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
        return
    with machine_errors(path):
        if not path.exists() or path.is_file():
            write_bytes(_real(path), data)
            return
        handle = _open_through(path)
        os.set_blocking(handle, True)
        with os.fdopen(handle, "wb") as file:
            file.write(data)


@contextmanager
def listened(path: Path) -> Iterator[None]:
    """Around work that ends with `write_output`: a named pipe is held open, so that its reader is there and stays.

    Raises:
        SuiteError: The pipe has no reader.
        MachineError: It cannot be opened.
    """
    with machine_errors(path):
        handle = _open_through(path) if path.is_fifo() else None
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _open_through(path: Path) -> int:
    """Opens what is no regular file for writing; waits for no reader."""
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise SuiteError(f"{path}: a named pipe without a reader. Start the reader first.") from error
        raise


def _real(path: Path) -> Path:
    """Where the links lead."""
    return Path(os.path.realpath(path))


def _standard_stream(path: Path) -> TextIO | None:
    """The standard stream that a path such as /dev/stdout names: opened anew, a file behind it would be cut."""
    if not path.is_absolute() or path.parts[1] not in ("dev", "proc"):
        return None
    for stream in (sys.stdout, sys.stderr):
        try:
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
        except (OSError, ValueError):
            continue
    return None
