"""Sums over tokens kept by cluster (document), and the standard errors that come from them.

Tokens of one document are not independent, so an error bar that treats them so is too small, and so is one by window
where documents run over windows. All standard errors here take as the unit the document, or the sequence where there
are no documents: per-cluster sums are sufficient for ratios (delta method) and for quantiles (Woodruff),
and coarser blocks of clusters serve half-samples of statistics that are neither.

Memory is bounded: documents whose ids agree modulo `N_CLUSTERS` share a cluster. Up to that many consecutive ids every
document is a cluster of its own; beyond, unions of independent clusters are still independent, so the estimate stays
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
_RESIDUES = {i * i % (N_BLOCKS - 1) for i in range(1, N_BLOCKS - 1)}
HALVES = np.array(
    [
        [(block - split) % (N_BLOCKS - 1) in _RESIDUES for block in range(N_BLOCKS - 1)] + [True]
        for split in range(N_BLOCKS - 1)
    ]
)
"""`[19, 20]` bool: 19 splits of the blocks into two halves. Every two blocks are together in 9 of them and apart in 10,
so that for linear statistics they tell as much as all 92,378 splits would (Paley 1933; Plackett and Burman 1946)."""
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


def integer_quantile_error(counts: Floats, q: float) -> float | None:
    """Standard error of a q-quantile of integers, of which `counts [N_BLOCKS, m]` in each block are 0, 1, ..., m - 1.

    The quantile is the number of integers v for which the share of values at or under v is under q: a sum of m
    indicators. Where the share at the quantile is far from q no half-sample has another one, and the error is 0.
    (Woodruff's interval, as in `quantile`, is shorter than the step from one integer to the next: it gives 0 nearly
    always.)
    """
    m = counts.shape[1]
    error = half_sample_error(lambda found, n: found.cumsum() < q * n, counts.sum(1), counts)
    return None if error is None else error * m


class BlockCounts:
    """Integer counts of n columns, kept in `N_BLOCKS` blocks of clusters for `half_sample_error`."""

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


def half_sample_error(
    statistic: Callable[..., float | NDArray[Any] | None], tokens: Floats, *tables: Floats
) -> float | None:
    """Standard error of `statistic(*tables summed over blocks, n_tokens)`, from balanced half-samples of the blocks.

    Each of 19 splits gives theta of a half, with share f of the tokens, and of the other half. With D their difference,
    2 f (1 - f) D is, for a ratio of sums, twice the half's sum of residuals over all tokens. So over G blocks

        se^2 = 19/20 * G / (G - 1) * mean over splits of (2 f (1 - f) D)^2

    is exactly what `ratio` gives over the same blocks (McCarthy 1969, Pseudo-replication: Half Samples). A statistic
    with steps moves between halves as it does between samples, where one block less would seldom move it.

    A statistic that is an array is a mean of indicators, one a latent. Indicators flip by themselves where a latent is
    within reach of the threshold, and as many are as a density is uncertain: that part of the variance falls with the
    root of the tokens, not with the tokens. So the squares of single latents within D^2, sum_j d_j^2 / k^2, count
    sqrt(2) times: without it the error is up to 16 % too small (2^-1/4).

    Args:
        statistic: Gives a number; or `[k]` values whose mean is meant; or None where it is not defined.
        tokens: `[N_BLOCKS]` tokens of each block.
        *tables: `[N_BLOCKS, ...]` sums by block.

    Returns:
        None for fewer than two blocks that hold tokens, or where the statistic is None on a half.
    """
    n_blocks, total = int((tokens > 0).sum()), float(tokens.sum())
    if n_blocks < 2:
        return None
    totals = [table.sum(0) for table in tables]
    squares = 0.0
    for half in HALVES:
        n = float(tokens[half].sum())
        if not 0 < n < total:
            continue
        sums = [table[half].sum(0) for table in tables]
        one = statistic(*sums, n)
        other = statistic(*(whole - mine for whole, mine in zip(totals, sums, strict=True)), total - n)
        if one is None or other is None:
            return None
        difference = np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64)
        square = float(difference.mean()) ** 2
        if difference.ndim:
            square += (math.sqrt(2) - 1) * float(difference @ difference) / len(difference) ** 2
        squares += (2 * n * (total - n) / total**2) ** 2 * square
    return math.sqrt(n_blocks / (n_blocks - 1) * squares / N_BLOCKS)
