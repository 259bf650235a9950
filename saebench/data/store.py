"""Vectors on disk, read through memory maps: what a cohort trains on, what a cell is scored on.

    FOLDER/manifest.json     key, sizes, digest of every shard, facts of whoever built it
    FOLDER/x-00000.bin       `[rows, d]` little-endian float32, float16 or bfloat16
    FOLDER/token_ids-00000.bin, positions-..., sequence_ids-...   `[rows]` int32, where there are tokens
    FOLDER/extras.safetensors                                      whole tensors (token windows, true codes)
    FOLDER/documents.txt                                           digests of the documents read

A folder is there whole or not at all: it is built under another name and renamed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch
from saebench.api.errors import MachineError
from saebench.artifacts import atomic_folder, digest, write_json

STORE_VERSION = 1
SHARD_BYTES = 1 << 28
INDEX = ("token_ids", "positions", "sequence_ids")
_TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_NUMPY: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}


def check_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raises MachineError when `n_bytes` do not fit on the disk of `folder`."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if n_bytes > free:
        raise MachineError(
            f"{folder}: {what} takes {n_bytes / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB of the disk are free. "
            "Free some space, choose another folder with --out, or ask for fewer tokens."
        )


class StoreWriter:
    """Takes rows in order and writes them into shards. Made by `ActivationStore.building`."""

    def __init__(self, folder: Path, d: int, dtype: str) -> None:
        self.folder, self.d, self.dtype = folder, d, dtype
        self.n_rows = 0
        self.sum = torch.zeros(d, dtype=torch.float64)
        self.facts: dict[str, Any] = {}
        self.extras: dict[str, Tensor] = {}
        self.documents: set[str] = set()
        self.columns: list[str] = []
        self.shard_rows = max(1, SHARD_BYTES // (d * _NUMPY[dtype].itemsize))
        self.shards: list[dict[str, Any]] = []
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict[str, Any] = {}
        self._rows = 0

    def add(self, batch: ActivationBatch) -> None:
        """Appends a batch; index columns are written where the batch has them."""
        x = batch.x.detach().cpu()
        self.sum += x.double().sum(0)
        columns = {"x": _to_numpy(x, self.dtype)}
        for name in INDEX:
            if (values := getattr(batch, name)) is not None:
                columns[name] = values.cpu().numpy().astype("<i4")
        self.columns = list(columns)
        start = 0
        while start < len(x):
            stop = min(len(x), start + self.shard_rows - self._rows)
            for name, values in columns.items():
                self._write(name, np.ascontiguousarray(values[start:stop]))
            self._rows += stop - start
            start = stop
            if self._rows == self.shard_rows:
                self._end_shard()
        self.n_rows += len(x)

    def _write(self, name: str, values: np.ndarray[Any, Any]) -> None:
        if name not in self._files:
            self._files[name] = (self.folder / f"{name}-{len(self.shards):05d}.bin").open("wb")
            self._hashes[name] = hashlib.sha256()
        data = values.tobytes()
        self._files[name].write(data)
        self._hashes[name].update(data)

    def _end_shard(self) -> None:
        files = {
            name: {"bytes": file.tell(), "sha256": self._hashes[name].hexdigest()} for name, file in self._files.items()
        }
        self.close()
        self.shards.append({"rows": self._rows, "files": files})
        self._rows = 0

    def content(self) -> str:
        """Digest of all vectors so far; ends the shard that is being written."""
        if self._rows:
            self._end_shard()
        return digest([shard["files"]["x"]["sha256"] for shard in self.shards])

    def close(self) -> None:
        """Closes what is open; harmless twice."""
        for file in self._files.values():
            file.close()
        self._files, self._hashes = {}, {}

    def finish(self, key: Mapping[str, Any]) -> None:
        """Writes the rest of the folder."""
        from safetensors.torch import save_file

        content = self.content()
        if self.extras:
            save_file(
                {name: tensor.contiguous() for name, tensor in self.extras.items()}, self.folder / "extras.safetensors"
            )
        (self.folder / "documents.txt").write_text(
            "".join(f"{line}\n" for line in sorted(self.documents)), encoding="ascii"
        )
        mean = (self.sum / max(1, self.n_rows)).tolist()
        write_json(
            self.folder / "manifest.json",
            {
                "version": STORE_VERSION, "key": dict(key), "n_rows": self.n_rows, "d": self.d, "dtype": self.dtype, "columns": self.columns,
                "shards": self.shards, "vectors": content, "mean": mean, "facts": self.facts, "extras": sorted(self.extras),
            },
        )  # fmt: skip


class ActivationStore:
    """A finished store, read only.

    Attributes:
        n_rows, d, dtype: Its size.
        facts: What its builder wrote down.
        vectors: Digest of all values as stored.
        mean: `[d]` float32 mean of the vectors, summed in float64.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.n_rows: int = manifest["n_rows"]
        self.d: int = manifest["d"]
        self.dtype: str = manifest["dtype"]
        self.facts: dict[str, Any] = manifest["facts"]
        self.vectors: str = manifest["vectors"]
        self.mean = torch.tensor(manifest["mean"], dtype=torch.float64).float()
        self.columns: list[str] = manifest["columns"]
        rows = [shard["rows"] for shard in manifest["shards"]]
        self._starts = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self._maps = {
            name: [self._map(name, number, count) for number, count in enumerate(rows)] for name in self.columns
        }
        self._extras: dict[str, Tensor] | None = None

    def _map(self, name: str, number: int, rows: int) -> np.ndarray[Any, Any]:
        dtype: np.dtype[Any] = _NUMPY[self.dtype] if name == "x" else np.dtype("<i4")
        shape = (rows, self.d) if name == "x" else (rows,)
        mapped: np.ndarray[Any, Any] = np.memmap(
            self.folder / f"{name}-{number:05d}.bin", dtype=dtype, mode="r", shape=shape
        )
        return mapped

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, Any]) -> ActivationStore | None:
        """The store in `folder` if it is whole and was built for `key`, else None."""
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            fits = manifest["version"] == STORE_VERSION and digest(manifest["key"]) == digest(dict(key))
            whole = all(
                (folder / f"{name}-{number:05d}.bin").stat().st_size == file["bytes"]
                for number, shard in enumerate(manifest["shards"])
                for name, file in shard["files"].items()
            )
            return cls(folder, manifest) if fits and whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @staticmethod
    @contextmanager
    def building(
        folder: Path, key: Mapping[str, Any], *, d: int, dtype: str, expected_rows: int, what: str
    ) -> Iterator[StoreWriter]:
        """A writer whose rows become the store in `folder` when the block ends well.

        Raises:
            MachineError: It does not fit on the disk, or the disk refuses.
        """
        check_space(folder, expected_rows * (d * _NUMPY[dtype].itemsize + 4 * len(INDEX)), what)
        with atomic_folder(folder) as temporary:
            writer = StoreWriter(temporary, d, dtype)
            try:
                yield writer
                writer.finish(key)
            finally:
                writer.close()

    @property
    def documents(self) -> frozenset[str]:
        """Digests of the documents (or generated sequences) it was made of."""
        return frozenset((self.folder / "documents.txt").read_text(encoding="ascii").split())

    def extra(self, name: str) -> Tensor:
        """A whole tensor that the builder left."""
        if self._extras is None:
            from safetensors.torch import load_file

            self._extras = load_file(self.folder / "extras.safetensors")
        return self._extras[name]

    def slice(self, start: int, stop: int) -> ActivationBatch:
        """Rows `[start, stop)` in stored order."""
        return self.take(np.arange(start, min(stop, self.n_rows)))

    def take(self, rows: np.ndarray[Any, Any] | Tensor) -> ActivationBatch:
        """The given rows, in the given order, x as float32."""
        rows = rows.numpy() if isinstance(rows, Tensor) else rows
        columns = {name: self._gather(name, rows) for name in self.columns}
        x = _to_torch(columns.pop("x"), self.dtype)
        index = {name: torch.from_numpy(values.astype(np.int64)) for name, values in columns.items()}
        return ActivationBatch(x, x, index.get("token_ids"), index.get("positions"), index.get("sequence_ids"))

    def _gather(self, name: str, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        maps = self._maps[name]
        if len(maps) == 1:
            return np.asarray(maps[0][rows])
        out = (
            np.empty((len(rows), *maps[0].shape[1:]), dtype=maps[0].dtype)
            if maps
            else np.empty((0, self.d), dtype=_NUMPY[self.dtype])
        )
        shard_of = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(shard_of):
            here = shard_of == number
            out[here] = maps[number][rows[here] - self._starts[number]]
        return out


def _to_numpy(x: Tensor, dtype: str) -> np.ndarray[Any, Any]:
    cast = x.to(_TORCH[dtype])
    if dtype == "bfloat16":
        return cast.view(torch.uint16).numpy()
    return cast.numpy()


def _to_torch(values: np.ndarray[Any, Any], dtype: str) -> Tensor:
    tensor = torch.from_numpy(values)
    return (tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor).float()


def to_device(batch: ActivationBatch, device: torch.device) -> ActivationBatch:
    """The batch on a device; the target stays x itself where it was."""
    if device.type == "cpu":
        return batch
    x = batch.x.to(device)
    moved = {
        name: None if (value := getattr(batch, name)) is None else value.to(device)
        for name in ("token_ids", "positions", "sequence_ids")
    }
    truth = batch.truth
    if truth is not None:
        truth = type(truth)(truth.values.to(device), truth.latents.to(device), truth.offsets.to(device), truth.d_sae)
    return ActivationBatch(x, x if batch.target is batch.x else batch.target.to(device), **moved, truth=truth)
