"""Writing so that nothing is ever half written: a temporary name in the same folder, fsync, then one rename."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from saebench.api.errors import MachineError
from saebench.artifacts.canonical import pretty_json

_REFUSALS = {
    errno.ENOSPC: "no space is left on the disk. Free some space, then run the same command again: it goes on where it left off",
    errno.EDQUOT: "the disk quota is used up. Free some space, then run the same command again: it goes on where it left off",
    errno.EROFS: "the file system is read-only. Choose another folder with --out",
    errno.EACCES: "permission denied. Choose a folder you may write to with --out",
    errno.EPERM: "permission denied. Choose a folder you may write to with --out",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another folder with --out",
    errno.EFBIG: "the file grew past the size limit of this process (ulimit -f). Raise it, then run the same command again",
}


def refuse(error: OSError, path: Path) -> MachineError | None:
    """The error as one clear line, when it is the machine that refuses; None for any other error."""
    reason = _REFUSALS.get(error.errno or 0)
    return MachineError(f"{path}: {reason}.") if reason else None


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Turns a full disk or a folder that cannot be written into a `MachineError` that names `path`."""
    try:
        yield
    except OSError as error:
        if refusal := refuse(error, path):
            raise refusal from error
        raise


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well the file there takes `path`'s place, else it is removed.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    with machine_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_path` for a whole folder; an older folder of that name is replaced."""
    path = Path(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    with machine_errors(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as handle:
                        os.fsync(handle.fileno())
            if path.exists():
                old = temporary.with_suffix(".old")
                os.replace(path, old)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file, with the newlines as given, or nothing."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Writes `pretty_json(value)`, or nothing."""
    write_text(path, pretty_json(value))
