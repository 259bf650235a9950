"""Checkpoints: one safetensors file with the tensors, one JSON file that says what they are and holds their digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench.api.errors import SuiteError
from saebench.artifacts.atomic import atomic_folder, atomic_path, write_json
from saebench.artifacts.canonical import file_digest

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_SCHEMA_VERSION = 1
TENSORS = "sae.safetensors"
META = "sae.json"


def _ready(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # safetensors refuses shared and strided storage: store plain copies, in name order so that equal weights give equal bytes
    return {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Writes the folder as a whole.

    Raises:
        MachineError: The disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    with atomic_folder(folder) as temporary:
        save_file(_ready(tensors), temporary / TENSORS)
        write_json(
            temporary / META,
            {**meta, "schema_version": CHECKPOINT_SCHEMA_VERSION, "sha256": file_digest(temporary / TENSORS)},
        )


def read_meta(folder: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        SuiteError: The folder is no checkpoint, or of a version this saebench does not read.
    """
    path = folder / META
    if not path.is_file():
        raise SuiteError(
            f"{folder}: no checkpoint stands here ({META} is missing). Give a folder that `saebench run` wrote under checkpoints/."
        )
    try:
        meta: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise SuiteError(
            f"{path}: not readable as JSON ({error}). Delete the folder and run again to train this cell anew."
        ) from error
    if meta.get("schema_version") != CHECKPOINT_SCHEMA_VERSION:
        raise SuiteError(
            f"{path}: schema_version is {meta.get('schema_version')!r}; this saebench reads {CHECKPOINT_SCHEMA_VERSION}. Use the saebench that wrote it."
        )
    return meta


def read_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and meta, verified against the digest in the meta.

    Raises:
        SuiteError: No checkpoint, an unknown version, or damaged tensors.
    """
    from safetensors.torch import load_file

    meta = read_meta(folder)
    path = folder / TENSORS
    if not path.is_file() or file_digest(path) != meta.get("sha256"):
        raise SuiteError(
            f"{path}: missing or damaged (its digest is not the one in {META}). Delete the folder and run again to train this cell anew."
        )
    return load_file(path), meta


def has_checkpoint(folder: Path, cell_id: str | None = None) -> bool:
    """True when a whole, undamaged checkpoint (of this cell) stands in the folder."""
    try:
        meta = read_meta(folder)
    except SuiteError:
        return False
    if cell_id is not None and meta.get("cell_id") != cell_id:
        return False
    path = folder / TENSORS
    return path.is_file() and file_digest(path) == meta.get("sha256")


def save_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Per-latent arrays as one safetensors file."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file(_ready(arrays), temporary)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """The arrays saved by `save_arrays`; empty when the file is not there."""
    from safetensors.torch import load_file

    return load_file(path) if path.is_file() else {}
