"""Clustered standard errors against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saebench.metrics.clusters import (
    N_BLOCKS,
    N_CLUSTERS,
    BlockCounts,
    ClusterRows,
    ClusterSums,
    jackknife,
    quantile,
    ratio,
)
from saebench.metrics.reconstruction import ReconstructionAccumulator


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """150 sequences of 8 tokens whose scale and error level are their sequence's."""
    rng = np.random.default_rng(3)
    level, scale = rng.gamma(2.0, 0.5, (150, 1, 1)), rng.gamma(4.0, 0.5, (150, 1, 1))
    x = 5 + scale * rng.standard_normal((150, 8, 3)) + rng.standard_normal((150, 1, 3))
    return x, x + level * rng.standard_normal(x.shape), np.repeat(np.arange(150), 8)


def test_standard_errors_match_a_cluster_bootstrap(clustered: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    x, x_hat, ids = clustered
    sums = ReconstructionAccumulator(3)
    sums.add(torch.from_numpy(x.reshape(-1, 3)), torch.from_numpy(x_hat.reshape(-1, 3)), torch.from_numpy(ids))
    values = sums.values()
    draws: dict[str, list[float]] = {"fvu": [], "mse": [], "relative-bias": [], "fvu-median-token": []}
    rng = np.random.default_rng(4)
    total = ((x - x.mean((0, 1))) ** 2).sum(-1).mean()
    for _ in range(1500):
        pick = rng.integers(0, len(x), len(x))
        a, b = x[pick], x_hat[pick]
        error = ((a - b) ** 2).sum(-1)
        draws["fvu"].append(error.sum() / ((a - a.mean((0, 1))) ** 2).sum())
        draws["mse"].append(error.mean())
        draws["relative-bias"].append((b**2).sum() / (a * b).sum())
        draws["fvu-median-token"].append(np.median(error) / total)
    for id, sampled in draws.items():
        tolerance = 0.25 if id == "fvu-median-token" else 0.1
        assert values[id].stderr == pytest.approx(np.std(sampled), rel=tolerance), id
    naive = ReconstructionAccumulator(3)
    naive.add(torch.from_numpy(x.reshape(-1, 3)), torch.from_numpy(x_hat.reshape(-1, 3)))
    assert (naive.mse().stderr or 0) < 0.6 * (values["mse"].stderr or 0)  # ignoring the sequences is far too sure
    assert values["variance-explained"].stderr == values["fvu"].stderr


def test_one_sequence_in_several_batches_is_one_cluster() -> None:
    rng = torch.Generator().manual_seed(0)
    x, e = torch.randn(600, 4, generator=rng), torch.randn(600, 4, generator=rng)
    ids = torch.arange(600) % 30  # every sequence comes back in every batch
    whole, parts = ReconstructionAccumulator(4), ReconstructionAccumulator(4)
    whole.add(x, x + e, ids)
    for piece in torch.arange(600).split(70):
        parts.add(x[piece], (x + e)[piece], ids[piece])
    for id, value in whole.values().items():
        assert parts.values()[id].value == pytest.approx(value.value, rel=1e-12), id
        assert parts.values()[id].stderr == pytest.approx(value.stderr, rel=1e-9), id


def test_ratio_of_one_cluster_has_no_standard_error() -> None:
    assert ratio(np.array([3.0]), np.array([2.0])) == (1.5, None)
    assert ratio(np.array([1.0, 2.0]), np.array([2.0, 4.0])) == (0.5, 0.0)


def test_memory_is_bounded_and_sums_are_whole_for_many_sequences() -> None:
    sums = ClusterSums("a")
    ids = torch.arange(3 * N_CLUSTERS) * 1_000_003
    sums.add(ids, a=torch.ones(3 * N_CLUSTERS))
    collected = sums.collect()
    assert collected["a"].sum() == 3 * N_CLUSTERS == collected.n
    assert len(collected.count) == N_CLUSTERS


def test_tokens_without_sequences_are_dealt_in_turn() -> None:
    rows = ClusterRows()
    first, second = rows(None, 3), rows(None, 2)
    assert [*first.tolist(), *second.tolist()] == [0, 1, 2, 3, 4]


def test_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"sequence_ids must be \[3\]"):
        ClusterRows()(torch.zeros(2, dtype=torch.int64), 3)


def test_quantile_of_constant_values_is_sure() -> None:
    value, error = quantile(np.full(100, 8.0), np.arange(100) % 10, 0.95)
    assert (value, error) == (8.0, 0.0)


def test_jackknife_of_a_mean_is_the_textbook_standard_error() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(N_BLOCKS)
    error = jackknife(lambda total, n: float(total[0] / n), np.ones(N_BLOCKS), values[:, None])
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(N_BLOCKS), rel=1e-12)
    assert jackknife(lambda total, n: None, np.ones(N_BLOCKS), values[:, None]) is None


def test_block_counts_equal_a_plain_count() -> None:
    rng = torch.Generator().manual_seed(1)
    rows, columns = torch.randint(0, N_CLUSTERS, (500,), generator=rng), torch.randint(0, 7, (500,), generator=rng)
    counts = BlockCounts(7)
    counts.add(rows[:200], columns[:200])
    counts.add(rows[200:], columns[200:])
    slow = np.zeros((N_BLOCKS, 7))
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        slow[row % N_BLOCKS, column] += 1
    assert np.array_equal(counts.blocks(), slow)
