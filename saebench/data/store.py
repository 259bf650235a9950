"""Vectors on disk, read through memory maps: what a cohort trains on, what a cell is scored on.

    FOLDER/manifest.json     key, sizes, digest of every shard, facts of whoever built it
    FOLDER/x-00000.bin       `[rows, d]` little-endian float32, float16 or bfloat16
    FOLDER/token_ids-00000.bin, positions-..., sequence_ids-...   `[rows]` int32, where there are tokens
    FOLDER/extras.safetensors                                      whole tensors (token windows, true codes)
    FOLDER/documents.txt                                           digests of the documents read

A folder is there whole or not at all: it is built under another name and renamed. Opening checks sizes; a shard that an earlier
run left is checked against its digest when it is first read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch
from saebench.api.errors import MachineError
from saebench.artifacts import atomic_folder, digest, file_digest, write_json
from saebench.data.disk import check_space, row_bytes
from saebench.data.precision import DTYPES, rounded
from saebench.data.windows import read_documents, write_documents

STORE_VERSION = 1
SHARD_BYTES = 1 << 28
INDEX = ("token_ids", "positions", "sequence_ids")


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
        self.shard_rows = max(1, SHARD_BYTES // row_bytes(d, dtype, tokens=False))
        self.shards: list[dict[str, Any]] = []
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict[str, Any] = {}
        self._rows = 0

    def add(self, batch: ActivationBatch) -> None:
        """Appends a batch; index columns are written where the batch has them."""
        x = batch.x.detach().cpu()
        self.sum += x.double().sum(0)
        columns = {"x": rounded(x, self.dtype).contiguous().view(torch.uint8).numpy()}
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
        data = memoryview(values.data).cast("B")
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
        write_documents(self.folder, self.documents)
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

    def __init__(self, folder: Path, manifest: Mapping[str, Any], *, checked: bool = False) -> None:
        self.folder = folder
        self.n_rows: int = manifest["n_rows"]
        self.d: int = manifest["d"]
        self.dtype: str = manifest["dtype"]
        self.facts: dict[str, Any] = manifest["facts"]
        self.vectors: str = manifest["vectors"]
        self.mean = torch.tensor(manifest["mean"], dtype=torch.float64).float()
        self.columns: list[str] = manifest["columns"]
        shards = manifest["shards"]
        self._starts = torch.tensor([0, *(shard["rows"] for shard in shards)]).cumsum(0)
        self._shards = [
            {name: self._map(name, i, shard["rows"]) for name in self.columns} for i, shard in enumerate(shards)
        ]
        self._unchecked = {} if checked else {i: shard["files"] for i, shard in enumerate(shards)}
        self._extras: dict[str, Tensor] | None = None

    def _map(self, name: str, number: int, rows: int) -> Tensor:
        """A shard's column as a tensor over its file: private, so writing to it would not reach the disk."""
        dtype, width = (DTYPES[self.dtype], self.d) if name == "x" else (torch.int32, 1)
        flat = torch.from_file(str(self._path(name, number)), shared=False, size=rows * width, dtype=dtype)
        return flat.view(rows, width) if name == "x" else flat

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f"{name}-{number:05d}.bin"

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, Any], *, checked: bool = False) -> ActivationStore | None:
        """The store in `folder` if it is whole and was built for `key`, else None.

        Args:
            folder: Where it stands.
            key: What decides its content.
            checked: This process wrote it: its shards need no check against their digests.
        """
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            fits = manifest["version"] == STORE_VERSION and digest(manifest["key"]) == digest(dict(key))
            whole = all(
                (folder / f"{name}-{number:05d}.bin").stat().st_size == file["bytes"]
                for number, shard in enumerate(manifest["shards"])
                for name, file in shard["files"].items()
            )
            if not (fits and whole):
                return None
            store = cls(folder, manifest, checked=checked)
            os.utime(folder / "manifest.json")  # the least recently used store makes room first
            return store
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            return None

    def _check(self, number: int) -> None:
        """Compares a shard with its digests, once.

        Raises:
            MachineError: It is damaged; the store is set aside, so that the next run builds it anew.
        """
        for name, file in self._unchecked.get(number, {}).items():
            path = self._path(name, number)
            if file_digest(path) != file["sha256"]:
                (self.folder / "manifest.json").unlink(missing_ok=True)
                raise MachineError(
                    f"{path}: the stored activations are damaged (their sha256 is not the one written down). "
                    "Run the same command again: this store is built anew, and all that was finished is kept."
                )
        self._unchecked.pop(number, None)

    @staticmethod
    @contextmanager
    def building(
        folder: Path, key: Mapping[str, Any], *, d: int, dtype: str, expected_rows: int, what: str
    ) -> Iterator[StoreWriter]:
        """A writer whose rows become the store in `folder` when the block ends well.

        Raises:
            MachineError: It does not fit on the disk, or the disk refuses.
        """
        check_space(folder, expected_rows * row_bytes(d, dtype), what)
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
        return read_documents(self.folder)

    def extra(self, name: str) -> Tensor:
        """A whole tensor that the builder left."""
        if self._extras is None:
            from safetensors.torch import load_file

            self._extras = load_file(self.folder / "extras.safetensors")
        return self._extras[name]

    def slice(self, start: int, stop: int) -> ActivationBatch:
        """Rows `[start, stop)` in stored order."""
        return self.take(torch.arange(start, min(stop, self.n_rows)))

    def take(self, rows: Tensor) -> ActivationBatch:
        """The given rows (int64), in the given order, x as float32."""
        columns = self.columns_of(rows)
        x = columns.pop("x").float()
        return batch_of(x, {name: values.long() for name, values in columns.items()})

    def columns_of(self, rows: Tensor) -> dict[str, Tensor]:
        """The given rows of every column as stored: `x [n, d]` in `dtype`, the others `[n]` int32."""
        shard_of = torch.bucketize(rows, self._starts[1:], right=True)
        numbers: list[int] = torch.bincount(shard_of).nonzero()[:, 0].tolist()
        for number in numbers:
            if number in self._unchecked:
                self._check(number)
        if len(numbers) == 1:
            offsets = rows - self._starts[numbers[0]]
            return {name: column.index_select(0, offsets) for name, column in self._shards[numbers[0]].items()}
        out = {
            name: torch.empty(
                (len(rows), self.d) if name == "x" else len(rows),
                dtype=DTYPES[self.dtype] if name == "x" else torch.int32,
            )
            for name in self.columns
        }
        for number in numbers:
            here = (shard_of == number).nonzero()[:, 0]
            offsets = rows[here] - self._starts[number]
            for name, column in self._shards[number].items():
                out[name].index_copy_(0, here, column.index_select(0, offsets))
        return out


def batch_of(x: Tensor, index: Mapping[str, Tensor]) -> ActivationBatch:
    """A batch that is its own target, with the index columns there are."""
    return ActivationBatch(x, x, index.get("token_ids"), index.get("positions"), index.get("sequence_ids"))


def to_device(batch: ActivationBatch, device: torch.device) -> ActivationBatch:
    """The batch on a device; the target stays x itself where it was."""
    if device.type == "cpu":
        return batch
    x = batch.x.to(device)
    moved = {name: None if (value := getattr(batch, name)) is None else value.to(device) for name in INDEX}
    truth = batch.truth
    if truth is not None:
        truth = type(truth)(truth.values.to(device), truth.latents.to(device), truth.offsets.to(device), truth.d_sae)
    return ActivationBatch(x, x if batch.target is batch.x else batch.target.to(device), **moved, truth=truth)
