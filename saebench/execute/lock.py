"""The lock of a run folder: one run at a time, and none that begins while another command reads.

A run holds it alone; commands that read a moment share it. The lock file stays: removing it would let two runs lock two
files of one name.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saebench.api.errors import MachineError, SuiteError
from saebench.artifacts import machine_errors

LOCK = ".lock"
READER_S = 60.0
"""How long a run waits for those who read."""


@contextmanager
def held(root: Path) -> Iterator[int]:
    """Holds the folder's lock alone; gives the descriptor of the lock file.

    Raises:
        SuiteError: Another run works in this folder, or something else has the name of the lock.
        MachineError: The folder cannot be written, or its file system takes no locks.
    """
    handle = _alone(root)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def shared(root: Path) -> Iterator[bool]:
    """Keeps a run from beginning meanwhile; gives False where the folder cannot be locked, or a run works in it."""
    try:
        handle = _open(root, os.O_RDONLY)
    except (OSError, SuiteError):
        yield False
        return
    try:
        try:
            taken = _flock(handle, fcntl.LOCK_SH)
        except OSError:
            taken = False
        yield taken
    finally:
        os.close(handle)


def require(root: Path) -> None:
    """Nothing, while the folder that was locked is where it was.

    Raises:
        MachineError: It was moved or removed: what is written now would make a second folder without a lock.
    """
    if not os.path.lexists(root / LOCK):
        raise MachineError(
            f"{root}: the run folder was moved or removed while the run worked in it. Run the same command again: it "
            "continues in the folder that it finds."
        )


def is_running(root: Path) -> bool:
    """True while a run holds the folder's lock."""
    try:
        handle = _open(root, os.O_RDONLY)
    except (OSError, SuiteError):
        return False
    try:
        return not _flock(handle, fcntl.LOCK_SH)
    except OSError:
        return False
    finally:
        os.close(handle)


def _alone(root: Path) -> int:
    patience = time.monotonic() + READER_S
    while True:
        with machine_errors(root / LOCK):
            handle = _open(root, os.O_RDWR | os.O_CREAT)
        try:
            if _flock(handle, fcntl.LOCK_EX):
                if _names(root, handle):
                    return handle
            elif not _flock(handle, fcntl.LOCK_SH):
                raise SuiteError(
                    f"{root}: another saebench run works in this folder. Wait for it, or choose another folder with "
                    "--out."
                )
        except BaseException as error:
            os.close(handle)
            if isinstance(error, OSError):
                raise MachineError(
                    f"{root}: the file system takes no locks (flock: {os.strerror(error.errno or 0)}). Choose a folder "
                    "on a local disk with --out."
                ) from error
            raise
        os.close(handle)
        if time.monotonic() > patience:
            raise SuiteError(
                f"{root}: another saebench command has read this folder for {READER_S:.0f} seconds. Wait for it, or "
                "choose another folder with --out."
            )
        time.sleep(0.05)


def _open(root: Path, flags: int) -> int:
    """The lock file, never through a link, never waiting on a FIFO."""
    path = root / LOCK
    if path.is_symlink():
        raise SuiteError(
            f"{path}: a link has the name of saebench's lock. Remove it, or choose another folder with --out."
        )
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise SuiteError(
            f"{path}: not a file, but saebench's lock has this name. Remove it, or choose another folder with --out."
        )
    return handle


def _names(root: Path, handle: int) -> bool:
    """Whether the folder's lock file is still the one that was locked: the folder may have been moved aside."""
    try:
        return os.path.samestat(os.fstat(handle), (root / LOCK).lstat())
    except FileNotFoundError:
        return False


def _flock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
