"""Disk space of stores: what they take, whether the disk holds them, which ones are removed under a quota."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.activations.manifests import MANIFEST, SEAL
from saebench.activations.precision import DTYPES
from saebench.api.errors import MachineError, SaebenchError
from saebench.artifacts import read_sealed

_NAME = re.compile(r"[0-9a-f]{16}")
INDEX_BYTES = 12
"""Token id, position and sequence of a row: int32 each."""
GB = 1_000_000_000


def row_bytes(d: int, dtype: str, *, tokens: bool = True) -> int:
    """Bytes of one row on disk."""
    return d * DTYPES[dtype].itemsize + INDEX_BYTES * tokens


def window_bytes(n_tokens: int, context: int) -> int:
    """Bytes of full token windows that hold `n_tokens` tokens beside their BOS."""
    return -(-n_tokens // (context - 1)) * (context + 1) * 4


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises MachineError when `n_bytes` do not fit on the disk of `folder`."""
    above = folder
    while not above.exists():
        above = above.parent
    free = shutil.disk_usage(above).free
    if n_bytes > free:
        raise MachineError(
            f"{folder}: {what} takes {n_bytes / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB of the disk are free. "
            "Free some space, choose another folder with --out, or ask for fewer tokens."
        )


@dataclass(frozen=True)
class Need:
    """A store that a cohort will read: what is known of its key before a model is loaded, and its size at most."""

    key: Mapping[str, Any]
    n_bytes: int
    what: str

    def met_by(self, key: Mapping[str, Any]) -> bool:
        """Whether a store under this key is the one."""
        return all(key.get(name) == value for name, value in self.key.items())


@dataclass(frozen=True)
class Stored:
    """A finished store on disk."""

    folder: Path
    key: Mapping[str, Any]
    n_bytes: int
    used_ns: int


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def stored(folder: Path) -> list[Stored]:
    """Finished stores below `folder`, least recently used first; none under a foreign name or behind a link."""
    found = []
    for manifest in folder.glob(f"*/{MANIFEST}"):
        if not _NAME.fullmatch(manifest.parent.name) or manifest.parent.is_symlink():
            continue
        with suppress(OSError, SaebenchError):
            key = read_sealed(manifest, SEAL)["key"]
            found.append(Stored(manifest.parent, key, folder_bytes(manifest.parent), manifest.stat().st_mtime_ns))
    return sorted(found, key=lambda store: (store.used_ns, store.folder.name))


def check_plan(folder: Path, steps: Sequence[Sequence[Need]], quota_gb: float | None) -> None:
    """Refuses up front what cannot work: `steps` are the stores that are needed at one time, step after step.

    Raises:
        MachineError: The disk or the quota does not hold them.
    """
    existing = stored(folder)
    missing: list[Need] = []
    for need in (need for step in steps for need in step):
        if not any(need.met_by(store.key) for store in existing) and not any(
            need.key == other.key for other in missing
        ):
            missing.append(need)
    growth = sum(need.n_bytes for need in missing)
    if quota_gb is not None:
        quota = int(quota_gb * GB)
        for number, step in enumerate(steps):
            now = _distinct(step)
            made = _distinct([need for earlier in steps[:number] for need in earlier])
            later = [need for need in _distinct([n for rest in steps[number + 1 :] for n in rest]) if need not in now]
            held = [need for need in later if need in made or any(need.met_by(store.key) for store in existing)]
            total = sum(need.n_bytes for need in now) + sum(need.n_bytes for need in held)
            if total > quota:
                raise MachineError(_over_quota(folder, total, quota, " and ".join(need.what for need in now)))
        growth = min(growth, max(0, quota - folder_bytes(folder)))
    check_space(folder, growth, f"the suite's {len(missing)} missing activation store{'s' * (len(missing) != 1)}")


def make_room(
    folder: Path, n_bytes: int, quota_gb: float | None, keep: Callable[[Stored], bool], what: str
) -> list[Path]:
    """Removes stores that may go, least recently used first, until `n_bytes` more fit under the quota.

    Returns:
        What was removed.

    Raises:
        MachineError: Even so they do not fit.
    """
    if quota_gb is None:
        return []
    quota = int(quota_gb * GB)
    taken = folder_bytes(folder)
    loose = [store for store in stored(folder) if not keep(store)]
    if taken - sum(store.n_bytes for store in loose) + n_bytes > quota:
        raise MachineError(_over_quota(folder, taken - sum(store.n_bytes for store in loose) + n_bytes, quota, what))
    removed = []
    for store in loose:
        if taken + n_bytes <= quota:
            break
        (store.folder / MANIFEST).unlink()  # from here on it is no store, whatever stops us
        shutil.rmtree(store.folder, ignore_errors=True)
        taken -= store.n_bytes
        removed.append(store.folder)
    return removed


def _distinct(needs: Sequence[Need]) -> list[Need]:
    out: list[Need] = []
    for need in needs:
        if need not in out:
            out.append(need)
    return out


def _over_quota(folder: Path, total: int, quota: int, what: str) -> str:
    return (
        f"{folder}: {what}, with the stores that are still needed beside it, takes "
        f"{total / 1e6:,.1f} MB, over quota_gb ({quota / 1e6:,.1f} MB). "
        "Raise `activations: quota_gb`, use `dtype: bfloat16`, `source: live`, or ask for fewer tokens."
    )
