"""Tensors out of safetensors, npz, npy and pt files, as numpy arrays. Importing this module imports no torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError, describe
from saebench.base.text import one_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

SUFFIXES = (".safetensors", ".npz", ".npy", ".pt")


def read_tensors(path: Path) -> dict[str, Floats]:
    """All floating tensors of a safetensors, npz, npy or pt file by name, as float32 or float64.

    The name is `""` in a file that holds just one.

    Raises:
        SuiteError: As `read_file`.
    """
    return read_file(path)[0]


def read_file(path: Path, *, whole: bool = False) -> tuple[dict[str, Floats], dict[str, Any]]:
    """Tensors of a file by name, and the settings (plain numbers, words) that a pt file holds beside them.

    Tensors may lie one level down: `{"state_dict": {...}, "cfg": {...}}`.

    Args:
        path: A safetensors, npz, npy or pt file.
        whole: Give tensors of whole numbers too, as float64.

    Raises:
        SuiteError: Of another kind, damaged, or a pickle that holds more than tensors.
    """
    if path.suffix not in SUFFIXES:
        raise SuiteError(
            f"{path}: tensors are read from {', '.join(SUFFIXES)} files, not from this one. Save them as one of these."
        )
    try:
        _refuse_bomb(path)
        if path.suffix == ".npy":
            with path.open("rb") as file:  # opened here: numpy leaves a damaged one open
                found: Any = {"": np.load(file, allow_pickle=False)}
        elif path.suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                found = {name: archive[name] for name in archive.files}
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            import torch

            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has exceptions of its own; all mean that the file cannot be used
        more = " Only tensors are read, never pickled code." if path.suffix == ".pt" else ""
        raise SuiteError(
            f"{path}: not readable as {path.suffix[1:]} ({one_line(describe(error), 300)}).{more} Save its tensors "
            "again."
        ) from error
    if not isinstance(found, Mapping):
        found = {"": found}
    settings: dict[str, Any] = {}
    while not any(_is_tensor(value) for value in found.values()):
        inner = [value for value in found.values() if isinstance(value, Mapping) and _holds_tensors(value)]
        if len(inner) != 1:
            break
        (found, beside) = inner[0], found
        settings |= _plain({name: value for name, value in beside.items() if value is not found})
    arrays = {str(name): _array(value, whole) for name, value in found.items()}
    settings |= _plain({name: value for name, value in found.items() if not _is_tensor(value)})
    return {name: array for name, array in arrays.items() if array is not None}, settings


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") or isinstance(value, np.ndarray)


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    return any(_is_tensor(v) or (isinstance(v, Mapping) and _holds_tensors(v)) for v in value.values())


def _plain(found: Mapping[Any, Any]) -> dict[str, Any]:
    """Numbers and words, those of `cfg` and the like included."""
    plain: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, Mapping):
            plain |= _plain(value)
        elif isinstance(value, bool | int | float | str):
            plain[str(name)] = value
    return plain


_LARGE = 1 << 28
_RATIO = 50


def _refuse_bomb(path: Path) -> None:
    """Weights hardly shrink when they are compressed: an archive that unpacks to 50 times its size holds none.

    Raises:
        ValueError: It is such an archive.
    """
    if path.suffix in (".npz", ".pt") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > max(_LARGE, _RATIO * path.stat().st_size):
            raise ValueError(f"{path.stat().st_size:,} bytes unpack to {unpacked:,}, which are no weights")


def _array(value: Any, whole: bool) -> Floats | None:
    if hasattr(value, "detach"):
        if value.is_sparse:
            return None
        if not value.is_floating_point():
            return value.detach().cpu().double().numpy() if whole and not value.is_complex() else None
        value = value.detach().cpu()
        value = (value if str(value.dtype) == "torch.float64" else value.float()).numpy()
    if whole and isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        return value.astype(np.float64)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return None
    return value if value.dtype == np.float64 else value.astype(np.float32, copy=False)
