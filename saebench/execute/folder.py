"""One run folder, one run at a time; what an earlier, killed run left half made is swept away."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from saebench.api.errors import SuiteError
from saebench.artifacts import RunFolder, machine_errors
from saebench.artifacts.leftovers import sweep

LOCK = ".lock"


def move_aside(root: Path) -> Path | None:
    """Moves an existing run folder to the first free `<name>.old-N` beside it; nothing is deleted. None when there is none."""
    if not root.exists():
        return None
    number = 1
    while (target := root.with_name(f"{root.name}.old-{number}")).exists():
        number += 1
    with machine_errors(root):
        root.rename(target)
    return target


@contextmanager
def locked(root: Path) -> Iterator[RunFolder]:
    """Makes the folder, holds its lock, sweeps it.

    Raises:
        SuiteError: Another run works in this folder.
        MachineError: The folder cannot be written.
    """
    with machine_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SuiteError(
                f"{root}: another saebench run works in this folder. Wait for it, or choose another folder with --out."
            ) from None
        run = RunFolder(root)
        sweep(run)
        yield run
    finally:
        os.close(handle)  # the file stays: removing it would let two runs lock two different files of one name


def is_running(root: Path) -> bool:
    """True while a run holds the folder's lock."""
    try:
        handle = os.open(root / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
