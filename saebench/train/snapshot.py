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
from saebench.cells.cell import ENGINE_VERSION
from saebench.nn.kernels import backends
from saebench.train.cell import CellRun

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


def state_of(run: CellRun) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the rest of a cell's training depends on: tensors and plain numbers."""
    prepared = run.prepared
    assert prepared is not None and prepared.trainer is not None and prepared.monitor is not None
    noted, numbers = prepared.monitor.state()
    tensors = {f"module/{name}": tensor for name, tensor in _tensors_of(prepared.module).items()}
    tensors |= {f"optimiser/{name}": tensor for name, tensor in prepared.trainer.optimiser.state().items()}
    tensors |= {f"monitor/{name}": tensor for name, tensor in noted.items()}
    tensors["generator"] = prepared.trainer.generator.get_state()
    return tensors, {
        "steps": run.outcome.steps,
        "meter": prepared.meter.state(),
        "monitor": numbers,
        "seconds": run.seconds,
        "trajectory_s": run.outcome.trajectory_s,
        "waited_s": run.outcome.waited_s,
    }


def restore(run: CellRun, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Gives a cell that was prepared the state that `state_of` took.

    Raises:
        ValueError, KeyError: It is not this cell's state. The run is then of no use: prepare a new one.
    """
    prepared = run.prepared
    assert prepared is not None and prepared.trainer is not None and prepared.monitor is not None

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}

    own, stored = _tensors_of(prepared.module), part("module")
    if {name: tensor.shape for name, tensor in own.items()} != {n: t.shape for n, t in stored.items()}:
        raise ValueError("its tensors are not those of this module")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
    trainer = prepared.trainer
    trainer.optimiser.load_state(part("optimiser"))
    trainer.generator.set_state(tensors["generator"])
    prepared.monitor.load_state(part("monitor"), numbers["monitor"], run.device)
    prepared.meter.load_state(numbers["meter"])
    trainer.steps = run.outcome.steps = int(numbers["steps"])
    run.seconds = float(numbers["seconds"])
    run.outcome.trajectory_s, run.outcome.waited_s = list(numbers["trajectory_s"]), float(numbers["waited_s"])


def _tensors_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Parameters and all buffers, also those that a checkpoint leaves out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def bits_depend_on(device: torch.device) -> dict[str, str | int]:
    """What decides the bits of training besides the cell: two runs that agree in all of it agree bit for bit."""
    if device.type == "cpu":
        place: dict[str, str | int] = {
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        }
    else:
        place = {"gpu": torch.cuda.get_device_name(device)}
    return {"engine": ENGINE_VERSION, "torch": torch.__version__, "backend": backends.current(device), **place}


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
                write_snapshot(snapshot_folder(self._root, run.cell.cell_id), self._key(run), *state_of(run))
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
            restore(run, tensors, numbers)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            self._say(f"{folder}: this snapshot is not used and the cell begins anew: {error}")
            raise ValueError(str(error)) from error
        return True

    def drop(self, run: CellRun) -> None:
        """Removes the snapshot of a cell that ended."""
        if self._root is not None:
            drop_snapshot(self._root, run.cell.cell_id)
