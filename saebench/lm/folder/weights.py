"""Weight files of a model folder: which of them are read, and which tensors are in them."""

from __future__ import annotations

import json
import math
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from saebench.api.errors import SuiteError
from saebench.artifacts import digest, file_digest
from saebench.cells.load import NOT_WHOLE
from saebench.lm.folder.locate import DECIDING, OTHER_WEIGHTS, WEIGHT_SETS, check_real, in_a_line, json_object

_ADAPTER = re.compile(r"adapter_(config\.json|model.*)")
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
_MAX_HEADER = 1 << 27


@dataclass(frozen=True)
class Stored:
    """A tensor in a weight file."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    file: str
    code: str = ""

    @property
    def kind(self) -> str:
        """What its values are, as the file says it where torch has no name for it."""
        return self.code or str(self.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class WeightFiles:
    """What of a folder is read.

    Attributes:
        files: The weight files, in the order in which they are read.
        index: The file that lists them, or None where there is one.
        unread: Other weight files by name, which are not read.
        adapter: Files of an adapter by name, which is never applied.
    """

    files: tuple[Path, ...]
    index: Path | None
    unread: tuple[str, ...]
    adapter: tuple[str, ...]

    @property
    def names(self) -> str:
        """For messages: the file, or the index."""
        return (self.index or self.files[0]).name

    @property
    def n_bytes(self) -> int:
        """Of the weight files."""
        return sum(path.stat().st_size for path in self.files)


def weight_files(folder: Path, model_id: str) -> WeightFiles:
    """The weight files that are read, and those that are not.

    Raises:
        SuiteError: There are none in a format that is read, two sets that compete, or a part of a set is not there.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    adapter = tuple(name for name in names if _ADAPTER.fullmatch(name))
    others = [name for name in names if OTHER_WEIGHTS.fullmatch(name) and name not in adapter]
    for single, listed in WEIGHT_SETS:
        if single in names and listed in names:
            raise SuiteError(
                f"model '{model_id}' has two sets of weights, {single} and the files of {listed}. "
                "Remove the one that is left over."
            )
    chosen = next((name for pair in WEIGHT_SETS for name in pair if name in names), None)
    if chosen is None:
        raise SuiteError(f"model '{model_id}': {_no_weights(others)}")
    index = folder / chosen if chosen.endswith(".index.json") else None
    files = _shards(index, model_id) if index is not None else (folder / chosen,)
    for path in files:
        check_real(path, model_id)
    read = {path.name for path in files}
    return WeightFiles(files, index, tuple(name for name in others if name not in read), adapter)


def _no_weights(others: Sequence[str]) -> str:
    found = ", ".join(others[:4]) + (", ..." if len(others) > 4 else "")
    if any(re.fullmatch(r"(model|pytorch_model)-\d+-of-\d+\..*", name) for name in others):
        return (
            f"the index of its weights (model.safetensors.index.json) is not there, only {found}. "
            "Copy or download the folder again."
        )
    if any(name.endswith(".gguf") for name in others):
        return (
            f"its weights are a GGUF file ({found}), which is not read. Give the folder with the original safetensors."
        )
    if any(name.endswith((".h5", ".msgpack", ".pth")) for name in others):
        return f"its weights are of another framework ({found}), which is not read. Save them as model.safetensors."
    if not others:
        return "its weights are no plain file. Give model.safetensors, its shards with an index, or pytorch_model.bin."
    return (
        f"its weights are called {found}, and only model.safetensors, its shards with an index, or pytorch_model.bin "
        "are read. Rename the file that is meant."
    )


def _shards(index: Path, model_id: str) -> tuple[Path, ...]:
    listed = json_object(index, model_id).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()) or not listed:
        raise SuiteError(f"model '{model_id}': {index.name} has no `weight_map` of tensors to files.")
    names = sorted(set(listed.values()))
    gone = [name for name in names if Path(name).name != name or not (index.parent / name).is_file()]
    if gone:
        raise SuiteError(
            f"model '{model_id}': {index.name} names {len(gone)} of {len(names)} weight files that are not there, "
            f"first '{gone[0]}'. Copy or download the folder again."
        )
    return tuple(index.parent / name for name in names)


def stored_tensors(weights: WeightFiles, model_id: str) -> dict[str, Stored]:
    """Every tensor in the weight files by name, from their headers.

    Raises:
        SuiteError: A file is damaged or cut short, or two files hold one tensor.
    """
    found: dict[str, Stored] = {}
    for path in weights.files:
        try:
            tensors = list(_safetensors(path) if path.suffix == ".safetensors" else _pickled(path))
        except pickle.UnpicklingError as error:
            raise SuiteError(
                f"model '{model_id}': {path.name} holds Python objects beside tensors, or is damaged; "
                "objects could run code, so they are never read. "
                "Save the model again with `save_pretrained`, which writes model.safetensors."
            ) from error
        except Exception as error:
            raise SuiteError(
                f"model '{model_id}': its weights cannot be loaded, {path.name} is damaged ({in_a_line(error)}). "
                "Copy or download the folder again."
            ) from error
        for name, tensor in tensors:
            if name in found:
                raise SuiteError(
                    f"model '{model_id}': tensor '{name}' is both in {found[name].file} and in {path.name}. "
                    "Remove the file that is left over."
                )
            found[name] = tensor
    return found


def _safetensors(path: Path) -> Iterator[tuple[str, Stored]]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise ValueError("its header does not fit into it")
        header: Mapping[str, Any] = json.loads(file.read(length))
    end = 8 + length
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        dtype = _DTYPES.get(tensor["dtype"], torch.uint8)
        start, stop = tensor["data_offsets"]
        shape = tuple(int(n) for n in tensor["shape"])
        if tensor["dtype"] in _DTYPES and stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"tensor '{name}' has another size than its shape")
        end = max(end, 8 + length + stop)
        yield name, Stored(shape, dtype, path.name, "" if tensor["dtype"] in _DTYPES else str(tensor["dtype"])[:20])
    if end != size:
        raise ValueError(f"it has {size} bytes, its header describes {end}")


def _pickled(path: Path) -> Iterator[tuple[str, Stored]]:
    for name, value in _unpickled(path, "meta").items():
        if isinstance(value, torch.Tensor):
            yield name, Stored(tuple(value.shape), value.dtype, path.name)


def load_tensors(weights: WeightFiles) -> dict[str, torch.Tensor]:
    """All tensors of the weight files, on the CPU; memory of the files where it can be."""
    from safetensors.torch import load_file

    found: dict[str, torch.Tensor] = {}
    for path in weights.files:
        found |= load_file(path) if path.suffix == ".safetensors" else _unpickled(path, "cpu")
    return found


def _unpickled(path: Path, device: str) -> dict[str, Any]:
    try:
        tensors = torch.load(path, map_location=device, mmap=True, weights_only=True)
    except RuntimeError:  # files of torch before 1.6 cannot be mapped
        tensors = torch.load(path, map_location=device, weights_only=True)
    if not isinstance(tensors, dict):
        raise ValueError("it holds no mapping of names to tensors")
    if not any(isinstance(value, torch.Tensor) for value in tensors.values()):
        keys = ", ".join(repr(key)[:40] for key in list(tensors)[:4]) or "nothing"
        raise ValueError(f"it holds {keys} in place of tensors by name: save the state dict alone")
    return tensors


def model_digest(folder: Path, weights: WeightFiles | None, *, whole: bool = True, code: bool = False) -> str:
    """SHA-256 over names and contents of the files that decide what is computed: config, tokenizer, weights, `code`.

    That of a folder that is not `whole` is marked: no run has it.
    """
    deciding = {path for path in folder.iterdir() if path.is_file() and DECIDING.fullmatch(path.name)}
    if code:
        deciding |= set(folder.rglob("*.py"))
    if weights is not None:
        deciding |= {*weights.files, *([weights.index] if weights.index else [])}
    found = digest([[path.name, file_digest(path)] for path in sorted(deciding)])
    return found if whole else f"{NOT_WHOLE}{found}"
