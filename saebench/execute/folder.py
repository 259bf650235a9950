"""One run folder, one run at a time, and whose it is: a run works in a folder of its own, and touches nothing else.

A folder is ours when its lock file says so, when it holds a plan or records of ours, or when nothing is in it yet.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from saebench.api.errors import Damaged, MachineError, SuiteError
from saebench.artifacts import RunFolder, machine_errors, read_json, read_meta, read_record
from saebench.artifacts.atomic import check_name, check_way, parse_temporary
from saebench.artifacts.layout import CHECKPOINTS, FOLDERS, PROGRESS, ROOT_NAMES
from saebench.artifacts.leftovers import sweep
from saebench.execute.lock import LOCK, held

_OURS = b"saebench run folder\n"
_BESIDE = b"saebench run folder, beside other files\n"
_IGNORED = frozenset({"lost+found", ".DS_Store"})
_FILES_READ = 20
"""Files that are read to find out whose a folder is."""
_PLAN_KEYS = frozenset({"schema_version", "suite", "suite_digest", "cells", "cohorts", "groups"})


class Owner(Enum):
    """Whose a folder is."""

    EMPTY = "nothing is in it, or it is not there"
    OURS = "made by a run"
    BESIDE = "somebody's, and a run works in it by --force-folder"
    THEIRS = "somebody's"


@dataclass(frozen=True)
class Tenancy:
    """Whose a folder is, and the names in it that are not saebench's."""

    owner: Owner
    others: tuple[str, ...] = ()

    @property
    def named(self) -> str:
        """The first of these names."""
        more = len(self.others) - 3
        return ", ".join(self.others[:3]) + (f" and {more} more" if more > 0 else "")


def tenancy(root: Path) -> Tenancy:
    """Looks at a folder; changes nothing.

    Raises:
        SuiteError: It is no folder, or its name is not text.
        MachineError: It cannot be read.
    """
    check_name(root)
    with machine_errors(root):
        if root.is_symlink() and not root.exists():
            raise SuiteError(f"{root}: a link that leads nowhere. Remove it, or choose another folder with --out.")
        try:
            names = sorted(path.name for path in root.iterdir())
        except FileNotFoundError:
            return Tenancy(Owner.EMPTY)
        except NotADirectoryError as error:
            raise SuiteError(f"{root}: a file has this name or a part of it. Choose a folder with --out.") from error
    others = tuple(name for name in names if not _is_ours(name))
    mark = _mark(root)
    if mark == _OURS:
        return Tenancy(Owner.OURS, others)
    if mark == _BESIDE:
        return Tenancy(Owner.BESIDE, others)
    if not set(names) - _IGNORED:
        return Tenancy(Owner.EMPTY)
    folders = [name for name in names if name in ROOT_NAMES]
    begun = mark is not None and _BESIDE.startswith(mark.rstrip()) and not folders and not others
    if begun or _has_plan(root) or _has_results(root):
        return Tenancy(Owner.BESIDE if others else Owner.OURS, others)
    return Tenancy(Owner.THEIRS, others or tuple(folders) or (LOCK,))


def check_folder(root: Path, *, fresh: bool = False, force: bool = False) -> Tenancy:
    """Whose the folder is, where a run may work in it; changes nothing.

    Args:
        root: The folder.
        fresh: The run moves it aside first.
        force: Work in it though it is somebody's.

    Raises:
        SuiteError: It is somebody's, or no folder.
        MachineError: It cannot be read, or something else has the name of a folder in it.
    """
    found = tenancy(root)
    if fresh and found.owner in (Owner.BESIDE, Owner.THEIRS):
        raise SuiteError(
            f"{root}: --fresh moves a whole folder aside, but this one holds files that are not saebench's "
            f"({found.named}). "
            "Choose another folder with --out."
        )
    if fresh and found.owner is Owner.OURS and Path.cwd().is_relative_to(root.resolve()):
        raise SuiteError(
            f"{root}: --fresh would move the current folder aside. Change to a folder outside, then run again."
        )
    if fresh and found.owner is Owner.OURS and os.path.ismount(root.resolve()):
        raise SuiteError(
            f"{root}: --fresh moves the folder aside, but this one is a mount point, which cannot be moved. "
            "Choose another folder with --out, such as a new one inside of it."
        )
    if found.owner is not Owner.THEIRS:
        if not fresh:
            for name in FOLDERS:
                check_way(root / name)
        return found
    if not force:
        raise SuiteError(
            f"{root}: not empty and not a run folder of saebench ({found.named}). Choose a new or empty folder "
            "with --out, "
            "or insist with --force-folder: the files in it are kept."
        )
    for name in ("plan.json", LOCK, *FOLDERS):
        if os.path.lexists(root / name) and not (name in FOLDERS and (root / name).is_dir()):
            raise SuiteError(
                f"{root / name}: not saebench's, but a run needs this name. Choose another folder with --out."
            )
    return found


@contextmanager
def locked(root: Path, *, fresh: bool = False, force: bool = False) -> Iterator[tuple[RunFolder, Path | None]]:
    """Makes the folder, holds its lock, clears what a killed run left; with `fresh` moves an older one aside.

    Yields:
        The folder, and where the older one is now.

    Raises:
        SuiteError: Another run works in this folder, or it is somebody's.
        MachineError: The folder cannot be written.
    """
    moved = None
    if check_folder(root, fresh=fresh, force=force).owner is Owner.OURS and fresh:
        with held(root):
            target = root.resolve()
            moved = _move_aside(target)
            with machine_errors(target):
                target.mkdir(exist_ok=True)  # `root` may be a link to it
    found = check_folder(root, force=force)
    with machine_errors(root):
        root.mkdir(parents=True, exist_ok=True)
    with held(root) as handle:
        with machine_errors(root / LOCK):
            if os.fstat(handle).st_size == 0:
                os.write(handle, _BESIDE if found.owner in (Owner.BESIDE, Owner.THEIRS) else _OURS)
        run = RunFolder(root)
        sweep(run)
        yield run, moved


def _move_aside(root: Path) -> Path:
    """Moves a folder to the first free `<name>.old-N` beside it; nothing is deleted."""
    number = 1
    while os.path.lexists(target := root.with_name(f"{root.name}.old-{number}")):
        number += 1
    try:
        with machine_errors(root):
            root.rename(target)
    except MachineError as error:
        raise MachineError(f"{error} (--fresh moves it to {target})") from error
    return target


def _is_ours(name: str) -> bool:
    made = parse_temporary(name)
    return (
        name in ROOT_NAMES
        or name == LOCK
        or name in _IGNORED
        or (made is not None and made[0] in ("plan.json", PROGRESS))
    )


def _mark(root: Path) -> bytes | None:
    """The beginning of the lock file; None where there is none."""
    path = root / LOCK
    if path.is_symlink() or not path.is_file():
        return None
    with machine_errors(path), path.open("rb") as file:
        return file.read(len(_BESIDE) + 1)


def _has_plan(root: Path) -> bool:
    try:
        plan = read_json(root / "plan.json")
    except Damaged:
        return False
    return isinstance(plan, dict) and plan.keys() >= _PLAN_KEYS


def _has_results(root: Path) -> bool:
    """Whether a record or a checkpoint of ours is below; also where there is no file at all, only folders."""
    run = RunFolder(root)
    for path in islice(run.record_paths(), _FILES_READ):
        with suppress(SuiteError, MachineError):
            read_record(path)
            return True
    for path in islice((root / CHECKPOINTS).glob("*/"), _FILES_READ):
        with suppress(SuiteError, MachineError):
            read_meta(path)
            return True
    return all(name in ROOT_NAMES for name in (path.name for path in root.iterdir())) and not any(
        path.is_symlink() or not path.is_dir() for path in root.rglob("*")
    )
