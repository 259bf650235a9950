"""Sums over tokens kept by cluster (sequence), and the standard errors that come from them.

Tokens of one sequence are not independent, so an error bar that treats them so is too small. All standard errors here
take the sequence as the unit: per-cluster sums are sufficient for ratios (delta method) and for quantiles (Woodruff),
and coarser blocks of clusters serve the delete-a-block jackknife of statistics that are neither.

Memory is bounded: sequences whose ids agree modulo `N_CLUSTERS` share a cluster. Up to that many consecutive ids every
sequence is a cluster of its own; beyond, unions of independent clusters are still independent, so the estimate stays
consistent. Without ids tokens count as independent and are dealt out in turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]

N_CLUSTERS = 4093
"""A prime, so that ids in regular steps do not fall together; fits int16."""
N_BLOCKS = 20
_ORIGIN_ROWS = 256


class ClusterRows:
    """Gives each token the row of its cluster, in `[0, N_CLUSTERS)`."""

    def __init__(self) -> None:
        self._dealt = 0

    def __call__(self, sequence_ids: Tensor | None, n_tokens: int, device: torch.device | None = None) -> Tensor:
        """`[n_tokens]` int64 rows on `device`.

        Raises:
            ValueError: `sequence_ids` is not `[n_tokens]`.
        """
        if sequence_ids is None:
            rows = torch.arange(self._dealt, self._dealt + n_tokens, device=device) % N_CLUSTERS
            self._dealt += n_tokens
            return rows
        if sequence_ids.shape != (n_tokens,):
            raise ValueError(f"sequence_ids must be [{n_tokens}], one a token, got {list(sequence_ids.shape)}")
        return torch.remainder(sequence_ids.to(device=device, dtype=torch.int64), N_CLUSTERS)


def add_rows(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """`table[rows] += values`, with repeats, in an order that is the same in every run (on CUDA too)."""
    if table.is_cuda:
        table.index_put_((rows,), values, accumulate=True)  # sorts first; index_add_ uses atomics in any order
    else:
        table.index_add_(0, rows, values)


def origin_of(x: Tensor) -> Tensor:
    """`[d]`: the (lower) median of each column of the first rows of `x [n, d]`, a place near the mean to sum from.

    On CUDA `median` has no deterministic form and raises in a run; a sort has one.
    """
    head = x[:_ORIGIN_ROWS]
    return head.sort(0).values[(len(head) - 1) // 2] if head.is_cuda else head.median(0).values


class ClusterSums:
    """Float64 sums of named per-token quantities, by cluster.

    Args:
        names: The quantities. One more, `vectors`, may have any width.
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self._rows = ClusterRows()
        self._table: Tensor | None = None
        self._vectors: Tensor | None = None

    def add(self, sequence_ids: Tensor | None, *, vectors: Tensor | None = None, **quantities: Tensor) -> Tensor:
        """Add B tokens, each quantity `[B]`, `vectors [B, width]`; returns their rows `[B]` int64."""
        columns = torch.stack(
            [
                torch.ones_like(quantities[self.names[0]], dtype=torch.float64),
                *(quantities[name].double() for name in self.names),
            ],
            1,
        )
        rows = self._rows(sequence_ids, columns.shape[0], columns.device)
        if self._table is None:
            self._table = columns.new_zeros(N_CLUSTERS, columns.shape[1])
            self._vectors = None if vectors is None else columns.new_zeros(N_CLUSTERS, vectors.shape[1])
        add_rows(self._table, rows, columns)
        if self._vectors is not None and vectors is not None:
            add_rows(self._vectors, rows, vectors.double())
        return rows

    def collect(self) -> Collected:
        """Sums of the clusters that hold tokens, on the CPU."""
        if self._table is None:
            return Collected(np.zeros(0), dict.fromkeys(self.names, np.zeros(0)), np.zeros((0, 0)))
        table = self._table.cpu().numpy()
        present = table[:, 0] > 0
        vectors = (
            self._vectors.cpu().numpy()[present] if self._vectors is not None else np.zeros((int(present.sum()), 0))
        )
        return Collected(table[present, 0], {name: table[present, i + 1] for i, name in enumerate(self.names)}, vectors)


class Collected:
    """Per-cluster sums: `count [G]`, each quantity `[G]` by name, `vectors [G, width]`."""

    def __init__(self, count: Floats, quantities: dict[str, Floats], vectors: Floats) -> None:
        self.count = count
        self.vectors = vectors
        self._quantities = quantities

    def __getitem__(self, name: str) -> Floats:
        return self._quantities[name]

    @property
    def n(self) -> int:
        """Tokens."""
        return round(float(self.count.sum()))

    def mean(self, name: str) -> tuple[float, float | None]:
        """Mean over tokens and its standard error."""
        return ratio(self[name], self.count)


def ratio(numerators: Floats, denominators: Floats) -> tuple[float, float | None]:
    """sum(numerators) / sum(denominators) over G independent clusters, with the delta method's standard error.

    With R = N / D and z_g = n_g - R d_g: var(R) = G / (G - 1) * sum z_g^2 / D^2 (Cochran, Sampling Techniques, 6.3).
    The standard error is None for fewer than two clusters. The caller sees to it that D is not zero.
    """
    total = float(denominators.sum())
    value = float(numerators.sum()) / total
    n_clusters = len(denominators)
    if n_clusters < 2:
        return value, None
    residuals = numerators - value * denominators
    return value, math.sqrt(n_clusters / (n_clusters - 1) * float(residuals @ residuals)) / abs(total)


def quantile(values: NDArray[Any], rows: NDArray[Any], q: float) -> tuple[float, float | None]:
    """The q-quantile (linear interpolation) of values `[n]` and its standard error for clusters `rows [n]`.

    Woodruff (1952): the clustered standard error s of the share of values at or under the quantile, carried back
    through the empirical distribution: half the distance between its (q - s)- and (q + s)-quantiles.
    """
    value = float(np.quantile(values, q))
    under = (values <= value).astype(np.float64)
    count = np.bincount(rows, minlength=N_CLUSTERS).astype(np.float64)
    present = count > 0
    if present.sum() < 2:
        return value, None
    _, error = ratio(np.bincount(rows, weights=under, minlength=N_CLUSTERS).astype(np.float64)[present], count[present])
    assert error is not None
    low, high = np.quantile(values, [max(q - error, 0.0), min(q + error, 1.0)])
    return value, float(high - low) / 2


class BlockCounts:
    """Integer counts of n columns, kept in `N_BLOCKS` blocks of clusters for a delete-a-block jackknife."""

    def __init__(self, n_columns: int) -> None:
        self.n_columns = n_columns
        self._counts: Tensor | None = None

    def add(self, rows: Tensor, columns: Tensor) -> None:
        """Count `columns [m]` (each in `[0, n_columns)`) in the blocks of their clusters `rows [m]`."""
        index = (rows % N_BLOCKS) * self.n_columns + columns
        counts = torch.bincount(index, minlength=N_BLOCKS * self.n_columns)
        if self._counts is None:
            self._counts = counts
        else:
            self._counts += counts

    def blocks(self) -> Floats:
        """`[N_BLOCKS, n_columns]`."""
        if self._counts is None:
            return np.zeros((N_BLOCKS, self.n_columns))
        return self._counts.cpu().numpy().reshape(N_BLOCKS, self.n_columns).astype(np.float64)


def jackknife(statistic: Callable[..., float | None], tokens: Floats, *tables: Floats) -> float | None:
    """Standard error of `statistic(*tables summed over blocks, n_tokens)` by leaving out one block at a time.

    se^2 = (G - 1) / G * sum (theta_(-g) - mean theta_(-g))^2 over the G blocks that hold tokens (`tokens [N_BLOCKS]`).
    None for fewer than two blocks, or where the statistic is None without one of them.
    """
    present = np.flatnonzero(tokens)
    if len(present) < 2:
        return None
    totals = [table.sum(0) for table in tables]
    without = [
        statistic(
            *(total - table[g] for total, table in zip(totals, tables, strict=True)), float(tokens.sum() - tokens[g])
        )
        for g in present
    ]
    if any(value is None for value in without):
        return None
    spread = np.array(without, dtype=np.float64)
    return math.sqrt((len(present) - 1) / len(present) * float(((spread - spread.mean()) ** 2).sum()))
