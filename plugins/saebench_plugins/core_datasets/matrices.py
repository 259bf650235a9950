"""Matrices in npy and safetensors files: where they are and their shape. Loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saebench.api import Problem, SuiteError
from saebench_plugins.core_datasets.plugin import ActivationsOptions

FLOATS = {"float16", "float32", "float64", "F16", "BF16", "F32", "F64"}


def shape_of(options: ActivationsOptions) -> tuple[int, int]:
    """`(n, d)`, from the file's header.

    Raises:
        SuiteError: No such file, no such key, or no matrix of floating-point numbers.
    """
    path = Path(options.path).expanduser()
    if not path.is_file():
        siblings = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise SuiteError(
            f"{options.path}: no such file.{hint} Allowed: a .npy or .safetensors file with a matrix [n, d]."
        )
    if path.suffix == ".npy":
        shape, dtype, where = _npy(path)
    elif path.suffix == ".safetensors":
        shape, dtype, where = _safetensors(path, options.key)
    else:
        raise SuiteError(f"{options.path}: the ending '{path.suffix}' is not known. Allowed: .npy, .safetensors.")
    if len(shape) != 2 or not all(shape) or dtype not in FLOATS:
        raise SuiteError(
            f"{where}: found {dtype} {list(shape)}, expected a matrix [n, d] of floating-point numbers, a row a vector. Reshape and save it again."
        )
    return shape[0], shape[1]


def _npy(path: Path) -> tuple[tuple[int, ...], str, str]:
    import numpy as np

    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SuiteError(
            f"{path}: cannot be read as npy ({' '.join(str(error).split())[:160]}). Save it again with numpy.save."
        ) from error
    return tuple(matrix.shape), str(matrix.dtype), str(path)


def _safetensors(path: Path, key: str | None) -> tuple[tuple[int, ...], str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            name = chosen_key(path, list(file.keys()), key)
            part = file.get_slice(name)
            return tuple(part.get_shape()), str(part.get_dtype()), f"{path} [{name}]"
    except (SafetensorError, OSError) as error:
        raise SuiteError(
            f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:160]}). Save it again."
        ) from error


def chosen_key(path: Path, keys: Sequence[str], key: str | None) -> str:
    """The tensor that is meant."""
    if key is None and len(keys) == 1:
        return keys[0]
    if key in keys:
        return str(key)
    names = ", ".join(sorted(keys)) or "none"
    if key is None:
        raise SuiteError(f"{path}: holds {len(keys)} tensors ({names}). Say which with `key:`.")
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise SuiteError(f"{path}: no tensor '{key}'. {hint}Found: {names}.")


def problems(options: ActivationsOptions) -> Sequence[Problem]:
    """What is wrong with the file."""
    try:
        shape_of(options)
    except SuiteError as error:
        return [Problem("key" if "tensor" in str(error) else "path", str(error))]
    return []


def describe(options: ActivationsOptions) -> dict[str, Any]:
    """Shape, for the record."""
    n, d = shape_of(options)
    return {"rows": n, "d": d}
