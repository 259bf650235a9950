"""Dataset `activations`: a user's own matrix of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebench.api import ActivationBatch, DatasetContext, Split, document_digest, split_of
from saebench_plugins.core_datasets import files, matrices
from saebench_plugins.core_datasets.plugin import ActivationsOptions

BLOCK_ROWS = 64
"""Neighbouring rows go to one part together: rows next to each other are often frames or tokens of one thing."""
MIN_BLOCKS = 50
"""A small matrix has smaller blocks, so that one block in five is close to one row in five."""


class MatrixRows:
    """Rows of a matrix on disk. Blocks of rows are held out by the hash of their number, one in five."""

    dictionary: Tensor | None = None

    def __init__(self, options: ActivationsOptions) -> None:
        self._options = options
        self.rows, self.d_in = matrices.shape_of(options)
        self.block_rows = max(1, min(BLOCK_ROWS, self.rows // MIN_BLOCKS))
        blocks = range(-(-self.rows // self.block_rows))
        held_out = np.array([split_of(document_digest(f"row block {block}")) == "held-out" for block in blocks])
        if not held_out.any():
            held_out[-1] = True  # a handful of rows: the last block is better than nothing
        self._held_out = np.repeat(held_out, self.block_rows)[: self.rows]
        self._read = self._open()

    def _open(self) -> Callable[[Any], Tensor]:
        path = Path(self._options.path).expanduser()
        if path.suffix == ".npy":
            matrix = np.load(path, mmap_mode="r", allow_pickle=False)
            return lambda rows: torch.from_numpy(np.array(matrix[rows], dtype=np.float32))
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(matrices.chosen_key(path, list(file.keys()), self._options.key))
        return lambda rows: tensor[torch.from_numpy(rows)].float()

    def n_tokens(self, split: Split) -> int:
        """Rows of one part."""
        held_out = int(self._held_out.sum())
        return held_out if split == "held-out" else self.rows - held_out

    def batches(self, split: Split, n_tokens: int, batch: int, seed: int) -> Iterator[ActivationBatch]:
        """At most `n_tokens` rows in an order shuffled by the seed; `sequence_ids` are row blocks."""
        rows = np.flatnonzero(self._held_out == (split == "held-out"))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n_tokens].numpy()
        for start in range(0, len(order), batch):
            chosen = rows[order[start : start + batch]]
            x = self._read(chosen)
            yield ActivationBatch(x, x, sequence_ids=torch.from_numpy(chosen // self.block_rows))

    def manifest(self) -> Mapping[str, Any]:
        """The file, its shape, and how rows are held out."""
        return {
            "files": files.manifest(self._options.path),
            **matrices.describe(self._options),
            "block_rows": self.block_rows,
            "held_out": self.n_tokens("held-out"),
        }


def open_activations(options: ActivationsOptions, _context: DatasetContext) -> MatrixRows:
    """Maps the file into memory."""
    return MatrixRows(options)
