"""Writing so that nothing is ever half written: a temporary name in the same folder, fsync, then one rename."""

from __future__ import annotations

import errno
import glob
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from saebench.api.errors import MachineError, SuiteError, said
from saebench.artifacts.proof import in_the_way, refused_reading
from saebench.base.canonical import pretty_json

_AGAIN = "then run the same command again"
_ELSEWHERE = "Choose another folder with --out"
_REFUSALS = {
    errno.ENOSPC: f"no space is left on the disk. Free some space, {_AGAIN}",
    errno.EDQUOT: f"the disk quota is used up. Free some space, {_AGAIN}",
    errno.EROFS: f"the file system is read-only. {_ELSEWHERE}",
    errno.EACCES: "permission denied. Choose a folder you may write to with --out",
    errno.EPERM: "permission denied. Choose a folder you may write to with --out",
    errno.EISDIR: f"a folder has the name of this file. Move it away, {_AGAIN}",
    errno.EEXIST: f"something else has the name of a folder. Move it away, {_AGAIN}",
    errno.ENOTDIR: f"something else has the name of a folder above it. Move it away, {_AGAIN}",
    errno.ENAMETOOLONG: "the name is too long for the file system. Choose a shorter one",
    errno.EBUSY: f"it is a mount point, or in use. {_ELSEWHERE}",
    errno.EFBIG: f"the file grew past the size limit of this process (ulimit -f). Raise it, {_AGAIN}",
    errno.EIO: "the disk failed (input/output error). Look at the disk or its cable, or choose another folder with "
    f"--out, {_AGAIN}",
    errno.ESTALE: f"the network file system lost the file. Mount it again, {_AGAIN}",
    errno.EMFILE: f"too many files are open in this process (ulimit -n). Raise it, {_AGAIN}",
    errno.ENFILE: f"too many files are open on this machine. Close some programs, {_AGAIN}",
}
_NETWORK = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH)
_QUOTED = re.compile(r"\(os error (\d+)\)(?: at path \"(.*)\")?")


def system_error(error: BaseException) -> OSError | None:
    """The operating system's error behind an exception; None where there is none.

    Safetensors, and other libraries in Rust, raise errors of their own that only quote it.
    """
    if isinstance(error, OSError):
        return error if error.errno else None
    found = _QUOTED.search(said(error)) if isinstance(error, Exception) else None
    return OSError(int(found[1]), os.strerror(int(found[1])), found[2]) if found else None


def refuse(error: BaseException, path: Path | None = None) -> MachineError | None:
    """The error as one clear line, when it is the machine that refuses, whatever the file; None for any other error.

    Args:
        error: Any exception.
        path: What the line names. Default: the file that the error names.
    """
    found = system_error(error)
    reason = _REFUSALS.get(found.errno or 0) if found else None
    if isinstance(error, FileExistsError | NotADirectoryError):
        named = path or (Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None)
        if named is not None and (blocked := in_the_way(named)):
            return MachineError(f"{blocked}. Move it away, or choose another name, {_AGAIN}.")
    return MachineError(f"{path or (found and found.filename) or 'a file'}: {reason}.") if reason else None


def _of_network(error: OSError) -> bool:
    """Whether it comes from a pipe or a network, never from a file: a plugin raised it."""
    return isinstance(error, ConnectionError | socket.gaierror | socket.herror) or error.errno in _NETWORK


@contextmanager
def machine_errors(path: Path) -> Iterator[None]:
    """Around work on `path`: whatever the operating system refuses there becomes a `MachineError` that names it.

    An error that names a file elsewhere (one that the block reads), or that no file gives, goes through as it is.
    """
    try:
        yield
    except Exception as error:
        found = system_error(error)
        if found is None or _of_network(found) or (found.filename is not None and not _near(found.filename, path)):
            raise
        if refusal := refuse(error, path):
            raise refusal from error
        if found is not error and found.filename is None:
            raise  # quoted by a library, of a file that the caller does not know
        raise MachineError(
            f"{path}: the machine refuses ({os.strerror(found.errno or 0)}). Remove the cause or choose another folder "
            f"with --out, {_AGAIN}."
        ) from error


def check_name(path: Path) -> None:
    """Nothing, where the name is text.

    Raises:
        SuiteError: It holds bytes that are no UTF-8: libraries that write tensors cannot open it, and no record can
            name it.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        raise SuiteError(f"{path}: the name is not UTF-8. Choose another name, or rename it.") from None


def check_way(folder: Path) -> None:
    """Nothing, where a folder is there and can be read, or can be made.

    Raises:
        MachineError: Something else has its name, or that of a folder above it; or what is in it cannot be read.
    """
    if blocked := in_the_way(folder):
        raise MachineError(f"{blocked}. Move it away, {_AGAIN}.")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK):
        raise refused_reading(folder, OSError(errno.EACCES, ""))


def _near(name: str | bytes | int, path: Path) -> bool:
    """Whether a file is `path`, its temporary one, below these, or on the way to them."""
    if isinstance(name, int):
        return True
    file, ours = Path(os.fsdecode(name)).absolute(), path.absolute()
    temporary = file.parts[: len(ours.parts)]
    return (
        file.is_relative_to(ours)
        or ours.is_relative_to(file)
        or (temporary[:-1] == ours.parts[:-1] and temporary[-1].startswith(f".{ours.name}."))
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems sync files only
            raise
    finally:
        os.close(handle)


_MADE = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.(?P<kind>tmp|old)")


def temporary_name(path: Path) -> Path:
    """`.<name>.<8 hex digits>.tmp` beside `path`."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"


def parse_temporary(name: str) -> tuple[str, str] | None:
    """What a name made by `temporary_name` is for, and its kind; None for any other name.

    The kind is `tmp` for what is not yet, or no longer, of use, and `old` for a whole folder whose place nothing has
    taken yet.
    """
    found = _MADE.fullmatch(name)
    return (found["name"], found["kind"]) if found else None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; when the block ends well the file there takes `path`'s place, else it is removed.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with machine_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if path.is_dir() and not path.is_symlink():
                with suppress(
                    OSError
                ):  # an empty folder in a file's place is of no use; one with files is refused below
                    path.rmdir()
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_path` for a whole folder; an older folder of that name is replaced.

    That takes two renames. A kill between them leaves the older folder under its `.old` name: `finish_swap` brings it
    back, `surviving` finds it.
    """
    path = Path(path)
    temporary = temporary_name(path)
    old = temporary.with_suffix(".old")
    with machine_errors(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as handle:
                        os.fsync(handle.fileno())
            _sync_folder(temporary)
            if os.path.lexists(path):
                os.replace(path, old)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            if os.path.lexists(old):
                # once the new folder is in place, the older one is called what it is: of no use, even half removed
                os.replace(old, temporary if os.path.lexists(path) else path)
            remove(temporary)


def remove(path: Path) -> None:
    """Removes a file, a link or a whole folder as far as the machine lets it; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def surviving(folder: Path) -> Path:
    """The folder, or what a kill inside `atomic_folder` left of it: the older one under its `.old` name."""
    found = [] if os.path.lexists(folder) or not folder.parent.is_dir() else _older(folder)
    return found[0] if found else folder


def _older(folder: Path) -> list[Path]:
    """Its `.old` folders, newest first."""
    found = [
        path
        for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.old")
        if parse_temporary(path.name) == (folder.name, "old") and path.is_dir() and not path.is_symlink()
    ]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def finish_swap(folder: Path) -> None:
    """Ends what a kill inside `atomic_folder` left half done: the folder exists, whole, and no `.old` of it.

    Raises:
        MachineError: The machine refuses to rename it.
    """
    for old in _older(folder):
        with machine_errors(folder):
            if os.path.lexists(folder):
                useless = temporary_name(folder)
                os.replace(old, useless)
                remove(useless)
            else:
                os.replace(old, folder)


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
