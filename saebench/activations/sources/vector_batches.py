"""Vectors of a dataset plugin, refused where they are no numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch

from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from saebench.api.batches import ActivationBatch
    from saebench.api.splits import Split
    from saebench.cells.cell import DatasetUse

VECTOR_ROWS = 4096
"""Rows asked of an activation dataset at a time."""


def finite_batches(batches: Iterable[ActivationBatch], use: DatasetUse, split: Split) -> Iterator[ActivationBatch]:
    """The batches, unchanged.

    Raises:
        SuiteError: A value is not finite; with the number of the vector in the order that the plugin gives them in.
    """
    first = 0
    for batch in batches:
        finite = torch.isfinite(batch.x).all(1)
        if not bool(finite.all()):
            number = first + int((~finite).nonzero()[0])
            raise SuiteError(
                f"dataset '{use.name}' (plugin {use.plugin}): {split} vector {number} is not finite. "
                "Mend the data first."
            )
        yield batch
        first += batch.n_tokens
