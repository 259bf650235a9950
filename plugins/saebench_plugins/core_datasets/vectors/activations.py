"""Dataset `activations`: a user's own matrix of vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saebench.api import ActivationBatch, DatasetContext, Split
from saebench_plugins.core_datasets.plugin import ActivationsOptions
from saebench_plugins.core_datasets.texts import files
from saebench_plugins.core_datasets.vectors import matrix_survey
from saebench_plugins.core_datasets.vectors.matrices import held_out_rows, open_matrix


class MatrixRows:
    """Rows of a matrix on disk. Blocks of rows are held out by the hash of their number, one in five."""

    dictionary: Tensor | None = None

    def __init__(self, options: ActivationsOptions) -> None:
        matrix_survey.demand_finite(options)
        self._options, self._matrix = options, open_matrix(options)
        self.rows, self.d_in = self._matrix.shape
        self._held_out, self.block_rows = held_out_rows(self.rows)

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
            x = torch.from_numpy(self._matrix.read(chosen))
            yield ActivationBatch(x, x, sequence_ids=torch.from_numpy(chosen // self.block_rows))

    def manifest(self) -> Mapping[str, Any]:
        """The file, its shape, how rows are held out, and what its values are like."""
        return {
            "files": files.manifest(self._options.path),
            "rows": self.rows,
            "d": self.d_in,
            "block_rows": self.block_rows,
            "held_out": self.n_tokens("held-out"),
            "look": matrix_survey.survey_matrix(self._options).facts,
        }


def open_activations(options: ActivationsOptions, _context: DatasetContext) -> MatrixRows:
    """Maps the file, and reads every value once.

    Raises:
        SuiteError: It is no matrix of finite numbers.
    """
    return MatrixRows(options)
