"""Checkpoints: a safetensors file with the tensors, and a JSON file that says what they are, with both digests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench.api.errors import Damaged, SuiteError
from saebench.artifacts.atomic import atomic_folder, atomic_path, surviving, write_json
from saebench.artifacts.layout import CHECKPOINTS
from saebench.artifacts.proof import check_seal, digest_of, in_the_way, kind_of, prove, read_json, sealed

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_SCHEMA_VERSION = 2
TENSORS = "sae.safetensors"
META = "sae.json"
SEAL = "meta_sha256"


def _ready(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses shared and strided storage: store plain copies, in name order so that equal weights give equal
    # bytes
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes the folder as a whole.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    with atomic_folder(folder) as temporary:
        save_file(_ready(tensors), temporary / TENSORS)
        content = {**meta, "schema_version": CHECKPOINT_SCHEMA_VERSION, "sha256": digest_of(temporary / TENSORS)}
        write_json(temporary / META, sealed(content, SEAL))


def read_meta(folder: Path, cell_id: str | None = None) -> dict[str, Any]:
    """The JSON part of a checkpoint, verified against its own digest.

    Where a kill cut its replacement short, the older one is read.

    Raises:
        SuiteError: The folder is no checkpoint.
        Damaged: It was changed, is of another cell than `cell_id` or its folder's name say, or of a version this
            saebench does not read.
        MachineError: The machine refuses to read it.
    """
    here = folder.absolute()
    folder = surviving(folder)
    path = folder / META
    if not os.path.lexists(path) and not os.path.lexists(folder / TENSORS):
        raise SuiteError(
            f"{folder}: no checkpoint is here ({in_the_way(folder) or f'{META} is missing'}). Give a folder that "
            "`saebench run` wrote under checkpoints/."
        )
    meta = read_json(path)
    version = meta.get("schema_version") if isinstance(meta, dict) else None
    if version != CHECKPOINT_SCHEMA_VERSION:
        raise Damaged(
            f"{path}: schema_version is {version!r}; this saebench reads {CHECKPOINT_SCHEMA_VERSION}",
            "Use the saebench that wrote it, or run the suite again.",
        )
    check_seal(path, meta, SEAL)
    found = str(meta.get("cell_id"))
    expected = cell_id or (here.name if here.parent.name == CHECKPOINTS else found)
    if not found.startswith(expected):
        raise Damaged(f"{path}: damaged (it is the checkpoint of cell {found[:16]}, not of {expected[:16]})")
    return dict(meta)


def read_checkpoint(folder: Path, cell_id: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta, verified against the digests in the meta.

    Raises:
        SuiteError, Damaged, MachineError: As `read_meta`; or the tensors are missing or were changed.
    """
    from safetensors.torch import load_file

    meta = read_meta(folder, cell_id)
    folder = surviving(folder)
    prove(folder / TENSORS, meta.get("sha256"))
    return load_file(folder / TENSORS), meta


def prove_checkpoint(folder: Path, cell_id: str) -> bool:
    """True when a whole, undamaged checkpoint of this cell is in the folder, False where there is none.

    Raises:
        Damaged, MachineError: As `read_checkpoint`.
    """
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise Damaged(f"{folder}: damaged ({kind_of(folder)} has the name of a folder)")
    try:
        prove(folder / TENSORS, read_meta(folder, cell_id).get("sha256"))
    except Damaged:
        raise
    except SuiteError:
        return False
    return True


def has_checkpoint(folder: Path, cell_id: str) -> bool:
    """True when a whole, undamaged checkpoint of this cell is in the folder.

    Raises:
        MachineError: The machine refuses to read it.
    """
    try:
        return prove_checkpoint(folder, cell_id)
    except Damaged:
        return False


def save_arrays(path: Path, arrays: Mapping[str, Tensor]) -> str:
    """Per-latent arrays as one safetensors file; gives its SHA-256, for the record that they belong to."""
    from safetensors.torch import save  # save_file would leave a temporary file of its own where it is killed

    with atomic_path(path) as temporary:
        temporary.write_bytes(save(_ready(arrays)))
        return digest_of(temporary)


def read_arrays(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The arrays saved by `save_arrays`, verified against what their record holds; none where it holds no digest.

    Raises:
        Damaged: They are missing, were changed, or belong to another record.
        MachineError: The machine refuses to read them.
    """
    from safetensors.torch import load_file

    if sha256 is None:
        return {}
    prove(path, sha256)
    arrays: dict[str, Tensor] = load_file(path)
    return arrays
