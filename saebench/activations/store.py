"""Vectors on disk, read through memory maps: what a cohort trains on, what a cell is scored on.

    FOLDER/manifest.json     key, sizes, digest of every file, facts of whoever built it
    FOLDER/x-00000.bin       `[rows, d]` little-endian float32, float16 or bfloat16
    FOLDER/token_ids-00000.bin, positions-..., sequence_ids-...   `[rows]` int32, where there are tokens
    FOLDER/document_ids-...                                        the same, of held-out text
    FOLDER/extras.safetensors                                      whole tensors (token windows, true codes)
    FOLDER/documents.txt                                           digests of the documents read

A folder is complete or does not exist: it is built under another name and renamed. What an earlier run left is proven
against its digests before it is read: small files when the store is opened, the rows (at about 1 GB/s) only where
they will be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from saebench.activations.manifests import prove_files, read_manifest, write_manifest
from saebench.activations.precision import DTYPES, rounded
from saebench.activations.quota import check_space, row_bytes
from saebench.activations.token_store import DOCUMENTS, read_documents, write_documents
from saebench.api.batches import ActivationBatch
from saebench.artifacts import atomic_folder, digest, digest_of

STORE_VERSION = 5
"""Goes up whenever the files of a store change; an older store is made anew."""
SHARD_BYTES = 1 << 28
EXTRAS = "extras.safetensors"
INDEX = ("token_ids", "positions", "sequence_ids", "document_ids")


class StoreWriter:
    """Takes rows in order and writes them into shards. Made by `ActivationStore.building`."""

    def __init__(self, folder: Path, d: int, dtype: str) -> None:
        self.folder, self.d, self.dtype = folder, d, dtype
        self.n_rows = 0
        self.facts: dict[str, Any] = {}
        self.extras: dict[str, Tensor] = {}
        self.documents: set[str] = set()
        self.columns: list[str] = []
        self.shard_rows = max(1, SHARD_BYTES // row_bytes(d, dtype, tokens=False))
        self.shards: list[int] = []
        self._sha256: dict[str, str] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict[str, Any] = {}
        self._rows = 0

    def add(self, batch: ActivationBatch) -> None:
        """Appends a batch; index columns are written where the batch has them."""
        x = batch.x.detach().cpu()
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
            self._files[name] = (self.folder / shard_name(name, len(self.shards))).open("wb")
            self._hashes[name] = hashlib.sha256()
        data = memoryview(values.data).cast("B")
        self._files[name].write(data)
        self._hashes[name].update(data)

    def _end_shard(self) -> None:
        for name, made in self._hashes.items():
            self._sha256[shard_name(name, len(self.shards))] = made.hexdigest()
        self.close()
        self.shards.append(self._rows)
        self._rows = 0

    def content(self) -> str:
        """Digest of all vectors so far; ends the shard that is being written."""
        if self._rows:
            self._end_shard()
        return digest([self._sha256[shard_name("x", number)] for number in range(len(self.shards))])

    def close(self) -> None:
        """Closes what is open; harmless twice."""
        for file in self._files.values():
            file.close()
        self._files, self._hashes = {}, {}

    def finish(self, key: Mapping[str, Any]) -> None:
        """Writes the rest of the folder."""
        from safetensors.torch import save_file

        content = self.content()
        write_documents(self.folder, self.documents)
        others = [DOCUMENTS]
        if self.extras:
            save_file({name: tensor.contiguous() for name, tensor in self.extras.items()}, self.folder / EXTRAS)
            others.append(EXTRAS)
        files = self._sha256 | {name: digest_of(self.folder / name) for name in others}
        write_manifest(
            self.folder, key, files,
            {
                "version": STORE_VERSION, "n_rows": self.n_rows, "d": self.d, "dtype": self.dtype,
                "columns": self.columns, "shards": self.shards, "vectors": content,
                "facts": self.facts, "extras": sorted(self.extras),
            },
        )  # fmt: skip


def shard_name(column: str, number: int) -> str:
    """File of one column of one shard."""
    return f"{column}-{number:05d}.bin"


class ActivationStore:
    """A finished store, read only.

    Attributes:
        n_rows, d, dtype: Its size.
        facts: What its builder wrote down.
        vectors: Digest of all values as stored.
        proven: Its rows are those that were written.
    """

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.n_rows: int = manifest["n_rows"]
        self.d: int = manifest["d"]
        self.dtype: str = manifest["dtype"]
        self.facts: dict[str, Any] = manifest["facts"]
        self.vectors: str = manifest["vectors"]
        self.columns: list[str] = manifest["columns"]
        self._manifest = manifest
        self._rows: list[int] = manifest["shards"]
        self._starts = torch.tensor([0, *self._rows]).cumsum(0)
        self.proven = False
        self._extras: dict[str, Tensor] | None = None

    @classmethod
    def open(
        cls, folder: Path, key: Mapping[str, Any], *, checked: bool = False, rows: bool = True
    ) -> ActivationStore | None:
        """The store in `folder` that was built for `key`; None where there is none.

        Args:
            folder: Its folder.
            key: What decides its content.
            checked: This process wrote it: its files need no check against their digests.
            rows: Its rows will be read: they are checked now, not when they are first read.

        Raises:
            Damaged: A file of it is missing, or was changed after it was written.
            MachineError: The machine refuses to read it.
        """
        manifest = read_manifest(folder, key, {"version": STORE_VERSION})
        if manifest is None:
            return None
        store = cls(folder, manifest)
        store.proven = checked
        if not checked:
            prove_files(folder, manifest, [name for name in manifest["files"] if not name.endswith(".bin")])
            if rows:
                store.prove_rows()
        return store

    def prove_rows(self) -> None:
        """Compares all rows with their digests, once.

        Raises:
            Damaged, MachineError: As `open`.
        """
        if not self.proven:
            names = [shard_name(name, number) for number in range(len(self._rows)) for name in self.columns]
            prove_files(self.folder, self._manifest, names)
            self.proven = True

    @cached_property
    def _shards(self) -> list[dict[str, Tensor]]:
        self.prove_rows()
        return [{name: self._map(name, i, rows) for name in self.columns} for i, rows in enumerate(self._rows)]

    def _map(self, name: str, number: int, rows: int) -> Tensor:
        """A shard's column as a tensor over its file: private, so writing to it would not reach the disk."""
        dtype, width = (DTYPES[self.dtype], self.d) if name == "x" else (torch.int32, 1)
        path = str(self.folder / shard_name(name, number))
        flat = torch.from_file(path, shared=False, size=rows * width, dtype=dtype)
        return flat.view(rows, width) if name == "x" else flat

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

            self._extras = load_file(self.folder / EXTRAS)
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
    token_ids, positions, sequence_ids, document_ids = (index.get(name) for name in INDEX)
    return ActivationBatch(x, x, token_ids, positions, sequence_ids, document_ids=document_ids)


def to_device(batch: ActivationBatch, device: torch.device) -> ActivationBatch:
    """The batch on a device; the target stays x itself where it was."""
    if device.type == "cpu":
        return batch
    x = batch.x.to(device)
    moved = {name: None if (value := getattr(batch, name)) is None else value.to(device) for name in INDEX}
    truth = None if batch.truth is None else batch.truth.to(device)
    return ActivationBatch(x, x if batch.target is batch.x else batch.target.to(device), **moved, truth=truth)
