"""Snapshots of cells in training. A killed run continues from them and ends bit for bit as if it had not been killed.

    ROOT/<cell id>/state.safetensors    parameters, all buffers, the optimiser's moments, generator state
    ROOT/<cell id>/state.json           steps, meter, trajectory, other plain numbers; digests of the tensors and itself

Every cell has a folder of its own and its own position in the order of batches: cells of a pass may be restored at
different ones. A snapshot is used only under the numerics it was written under (`bits_depend_on`); under others the
cell begins anew, and a line says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saebench.api.errors import Damaged, MachineError
from saebench.artifacts import (
    atomic_folder,
    canonical_json,
    digest_of,
    prove,
    read_sealed,
    remove,
    sealed,
    write_text,
)
from saebench.train.cell import CellRun
from saebench.train.numerics import bits_depend_on

SNAPSHOT_VERSION = 3
COST_SHARE = 0.02
"""Most of a pass's time that snapshots may take: where writing them is slow they come less often."""
_TENSORS, _NUMBERS, _SEAL = "state.safetensors", "state.json", "state_sha256"


def snapshot_folder(root: Path, cell_id: str) -> Path:
    """Where a cell's snapshot is stored."""
    return root / cell_id[:16]


def drop_snapshot(root: Path, cell_id: str) -> None:
    """Removes a cell's snapshot, if there is one."""
    remove(snapshot_folder(root, cell_id))


def write_snapshot(
    folder: Path, key: Mapping[str, Any], tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]
) -> None:
    """Writes one cell's state; an older one is replaced whole.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    with atomic_folder(folder) as temporary:
        save_file(_storable(tensors), temporary / _TENSORS)
        sha256 = digest_of(temporary / _TENSORS)
        state = {"version": SNAPSHOT_VERSION, "key": dict(key), "sha256": sha256, "numbers": dict(numbers)}
        write_text(temporary / _NUMBERS, canonical_json(sealed(state, _SEAL)))


def read_snapshot(folder: Path, key: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write_snapshot` wrote under the same key.

    Raises:
        ValueError: It is damaged, of another cell, or was written under other numerics: the cell would end with other
            bits.
    """
    from safetensors.torch import load_file

    try:
        stored = read_sealed(folder / _NUMBERS, _SEAL)
        if stored["version"] != SNAPSHOT_VERSION:
            raise ValueError(f"it is of version {stored['version']}, this saebench reads {SNAPSHOT_VERSION}")
        if other := [name for name in key if stored["key"].get(name) != key[name]]:
            found = ", ".join(f"{name} {stored['key'].get(name)} (here {key[name]})" for name in other)
            raise ValueError(f"it was written under {found}")
        prove(folder / _TENSORS, stored["sha256"])
        return load_file(folder / _TENSORS), dict(stored["numbers"])
    except Damaged as error:
        raise ValueError(error.found) from error


def _storable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, dense, no two over the same memory: what safetensors takes. Copies only where it must."""
    seen: set[int] = set()
    ready = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        ready[name] = tensor
    return ready


class Snapshots:
    """When to write snapshots of a pass, and where.

    Args:
        root: Folder of snapshots; None for none.
        every_s: Seconds between two, or more where writing takes more than `COST_SHARE` of the time.
        device: Where cells are trained.
        say: Hears why a snapshot was not used or not written.
    """

    def __init__(self, root: Path | None, every_s: float, device: torch.device, say: Callable[[str], None]) -> None:
        self._root, self._every_s, self._say = root, every_s, say
        self._numerics = bits_depend_on(device)
        self._due = time.perf_counter() + every_s
        self._refused = False

    def _key(self, run: CellRun) -> dict[str, str | int]:
        return {"cell": run.cell.cell_id, **self._numerics}

    def save(self, runs: Sequence[CellRun]) -> None:
        """Writes all cells' states if it is time. A disk that refuses costs the snapshot, not the training."""
        started = time.perf_counter()
        if self._root is None or started < self._due:
            return
        try:
            for run in runs:
                write_snapshot(snapshot_folder(self._root, run.cell.cell_id), self._key(run), *run.state())
            self._refused = False
        except MachineError as error:
            if not self._refused:
                self._say(f"warning: no snapshot was written; training continues: {error}")
            self._refused = True  # said once, not every two minutes
        now = time.perf_counter()
        self._due = now + max(self._every_s, (now - started) / COST_SHARE if self._every_s else 0.0)

    def load(self, run: CellRun) -> bool:
        """Restores a prepared cell; False where there is no snapshot. The run is of no use any more when this raises.

        Raises:
            ValueError: There is one, but not a usable one; a line says why.
        """
        if self._root is None or not (folder := snapshot_folder(self._root, run.cell.cell_id)).exists():
            return False
        try:
            tensors, numbers = read_snapshot(folder, self._key(run))
            run.load_state(tensors, numbers)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            self._say(f"{folder}: this snapshot is not used and the cell begins anew: {error}")
            raise ValueError(str(error)) from error
        return True

    def drop(self, run: CellRun) -> None:
        """Removes the snapshot of a cell that ended."""
        if self._root is not None:
            drop_snapshot(self._root, run.cell.cell_id)
