"""Matrices in npy and safetensors files, mapped and not loaded: where they are, their shape, their rows. Loads no
torch."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saebench.api import Site, SuiteError, located, split_of
from saebench_plugins.core_datasets.plugin import ActivationsOptions
from saebench_plugins.core_datasets.texts.lines import check_plain

BLOCK_ROWS = 64
"""Neighbouring rows go to one part together: rows next to each other are often frames or tokens of one thing."""
MIN_BLOCKS = 50
"""A small matrix has smaller blocks, so that one block in five is close to one row in five."""
PIECE_BYTES = 1 << 24
"""Of float32 read at once."""

_NPY = {"f2": "float16", "f4": "float32", "f8": "float64"}
_SAFETENSORS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_STORED = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}


class KeyProblem(SuiteError):
    """The tensor that is meant is not known, or not there."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """A matrix on disk.

    Attributes:
        raw: `[n, d]` mapped file, as stored; bfloat16 as its 16 bits.
        dtype: float16, bfloat16, float32 or float64.
        name: The file, and the tensor in it, for messages.
    """

    raw: NDArray[Any]
    dtype: str
    name: str

    @property
    def shape(self) -> tuple[int, int]:
        """`(n, d)`."""
        return int(self.raw.shape[0]), int(self.raw.shape[1])

    def read(self, rows: Any) -> NDArray[np.float32]:
        """Rows (a slice or indices) as float32; a float64 beyond its range is infinite."""
        taken = self.raw[rows]
        if self.dtype == "bfloat16":
            widened: NDArray[np.float32] = (taken.astype(np.uint32) << np.uint32(16)).view(np.float32)
            return widened
        with np.errstate(over="ignore", invalid="ignore"):
            return np.array(taken, dtype=np.float32, order="C")

    def pieces(self, rows: slice = slice(None)) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Consecutive rows with the number of the first."""
        start, stop, _ = rows.indices(self.shape[0])
        step = max(1, PIECE_BYTES // (4 * self.shape[1]))
        for first in range(start, stop, step):
            yield first, self.read(slice(first, min(stop, first + step)))


def open_matrix(options: ActivationsOptions) -> Matrix:
    """Maps the file.

    Raises:
        SuiteError: No such file, no such key, or no matrix of floating-point numbers.
    """
    path = located(options.path)
    if not path.exists():
        siblings = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.5)
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise SuiteError(
            f"{options.path}: no such file.{hint} Allowed: a .npy or .safetensors file with a matrix [n, d]."
        )
    check_plain(path, options.path)
    ending = path.suffix.lower()
    if ending == ".npy":
        raw, dtype, where = _npy(path)
    elif ending == ".safetensors":
        raw, dtype, where = _safetensors(path, options.key)
    else:
        raise SuiteError(f"{options.path}: the ending '{path.suffix}' is not known. Allowed: .npy, .safetensors.")
    return Matrix(raw, dtype, where)


def site(options: ActivationsOptions) -> Site:
    """Width of the matrix."""
    d = open_matrix(options).shape[1]
    return Site(d, d, "activations", "activations")


def _demand(where: str, shape: Sequence[int], stored: str, dtype: str | None) -> str:
    if len(shape) != 2 or not all(shape) or dtype is None:
        raise SuiteError(
            f"{where}: found {stored} {list(shape)}, expected a matrix [n, d] of floating-point numbers (16, 32 or 64 "
            "bits), a row a vector. "
            "Reshape and save it again."
        )
    return dtype


def _npy(path: Path) -> tuple[NDArray[Any], str, str]:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a header is Python source to numpy: a damaged one raises anything
        raise SuiteError(
            f"{path}: cannot be read as npy ({' '.join(str(error).split())[:160]}). Save it again with numpy.save."
        ) from error
    if not isinstance(matrix, np.ndarray):
        matrix.close()
        raise SuiteError(f"{path}: is an npz archive by another name. Save one matrix with numpy.save.")
    return matrix, _demand(str(path), matrix.shape, str(matrix.dtype), _NPY.get(matrix.dtype.str[1:])), str(path)


def _safetensors(path: Path, key: str | None) -> tuple[NDArray[Any], str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:  # checks the header as a whole
            name = chosen_key(path, list(file.keys()), key)
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(8), "little")
            entry = json.loads(raw.read(length))[name]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise SuiteError(
            f"{path}: cannot be read as safetensors ({' '.join(str(error).split())[:160]}). Save it again."
        ) from error
    where = f"{path} [{name}]"
    dtype = _demand(where, entry["shape"], entry["dtype"], _SAFETENSORS.get(entry["dtype"]))
    offset = 8 + length + entry["data_offsets"][0]
    return np.memmap(path, _STORED[dtype], "r", offset, tuple(entry["shape"])), dtype, where


def chosen_key(path: Path, keys: Sequence[str], key: str | None) -> str:
    """The tensor that is meant."""
    if key is None and len(keys) == 1:
        return keys[0]
    if key in keys:
        return str(key)
    names = ", ".join(sorted(keys)[:20]) or "none"
    if key is None:
        raise KeyProblem(f"{path}: holds {len(keys)} tensors ({names}). Say which with `key:`.")
    near = difflib.get_close_matches(key, keys, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    raise KeyProblem(f"{path}: no tensor '{key}'. {hint}Found: {names}.")


def held_out_rows(rows: int) -> tuple[NDArray[np.bool_], int]:
    """`[rows]` true where a row is held out, and rows of a block. Blocks are held out by the hash of their number, one
    in five."""
    block_rows = max(1, min(BLOCK_ROWS, rows // MIN_BLOCKS))
    blocks = range(-(-rows // block_rows))
    codes = (hashlib.sha256(f"row block {block}".encode()).hexdigest() for block in blocks)
    held_out = np.array([split_of(code) == "held-out" for code in codes])
    if not held_out.any():
        held_out[-1] = True  # a handful of rows: the last block is better than nothing
    return np.repeat(held_out, block_rows)[:rows], block_rows
