"""Clustered standard errors against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saebench.activations.tokens import pack_numbered
from saebench.metrics.clusters import (
    HALVES,
    N_BLOCKS,
    N_CLUSTERS,
    BlockCounts,
    ClusterRows,
    ClusterSums,
    half_sample_error,
    integer_quantile_error,
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


def _packed_fvu(documents: list[tuple[int, list[int]]], context: int, x: np.ndarray, x_hat: np.ndarray, by: str):
    """FVU of tokens packed into windows of `context`; errors by document or by window."""
    windows = list(pack_numbered(documents, context=context, bos_id=-1))
    ids = torch.tensor([ids for ids, _ in windows])
    kept = ids >= 0
    units = torch.tensor([numbers for _, numbers in windows])[kept] if by == "document" else kept.nonzero()[:, 0]
    sums = ReconstructionAccumulator(x.shape[1])
    rows = ids[kept].numpy()
    sums.add(torch.from_numpy(x[rows]), torch.from_numpy(x_hat[rows]), units)
    return sums.fvu()


def test_errors_do_not_depend_on_the_length_of_windows() -> None:
    """Documents with levels of their own, longer and shorter than the windows: the unit is the document."""
    rng = np.random.default_rng(5)
    lengths = rng.integers(30, 300, 120)
    document = np.repeat(np.arange(120), lengths)
    x = rng.standard_normal((len(document), 4))
    x_hat = x + rng.gamma(2.0, 0.3, 120)[document, None] * rng.standard_normal(x.shape)
    starts = np.concatenate([[0], lengths.cumsum()])
    documents = [(i, list(range(starts[i], starts[i + 1]))) for i in range(120)]
    found = {context: _packed_fvu(documents, context, x, x_hat, "document") for context in (17, 65, 257)}
    whole = ReconstructionAccumulator(4)
    whole.add(torch.from_numpy(x), torch.from_numpy(x_hat), torch.from_numpy(document))
    for value in found.values():
        assert value.stderr == pytest.approx(whole.fvu().stderr, rel=0.05)
    by_window = _packed_fvu(documents, 17, x, x_hat, "window").stderr
    assert by_window is not None
    assert by_window < 0.5 * (whole.fvu().stderr or 0)  # 16 tokens of a document are no sample of documents


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


def test_half_samples_are_balanced() -> None:
    signs = np.where(HALVES, 1, -1)
    assert HALVES.shape == (N_BLOCKS - 1, N_BLOCKS)
    assert not signs.sum(1).any()
    assert np.array_equal(signs.T @ signs, N_BLOCKS * np.eye(N_BLOCKS) - 1)


@pytest.mark.parametrize("n_blocks", [2, 3, 7, N_BLOCKS])
def test_half_samples_of_a_ratio_give_the_error_of_a_ratio(n_blocks: int) -> None:
    """Exactly, however many blocks hold tokens, and however many tokens each."""
    rng = np.random.default_rng(n_blocks)
    tokens, sums = np.zeros(N_BLOCKS), np.zeros((N_BLOCKS, 1))
    present = rng.permutation(N_BLOCKS)[:n_blocks]
    tokens[present], sums[present, 0] = rng.integers(1, 9, n_blocks), rng.standard_normal(n_blocks)
    error = half_sample_error(lambda found, n: float(found[0] / n), tokens, sums)
    assert error == pytest.approx(ratio(sums[present, 0], tokens[present])[1], rel=1e-12)


def test_half_samples_of_nothing() -> None:
    sums, one = np.ones((N_BLOCKS, 1)), np.eye(N_BLOCKS)[0]
    assert half_sample_error(lambda found, n: None, np.ones(N_BLOCKS), sums) is None
    assert half_sample_error(lambda found, n: 1.0, one, sums) is None
    assert half_sample_error(lambda found, n: 1.0, np.zeros(N_BLOCKS), sums) is None
    assert half_sample_error(lambda found, n: found > 0, np.ones(N_BLOCKS), sums) == 0


def test_half_samples_of_a_fraction_by_hand() -> None:
    """Of 4 indicators one is the block's own sign and two are the first block's: the differences between halves, and
    what each indicator brings for itself."""
    tokens = np.ones(N_BLOCKS)
    table = np.zeros((N_BLOCKS, 4))
    table[0, :2] = 1

    def flags(found: np.ndarray, n: float) -> np.ndarray:
        return np.array([found[0] > 0, found[1] > 0, True, False])

    # block 0 is in one half of every split: two indicators differ, D = 2 / 4, and 2 f (1 - f) = 1 / 2
    together, alone = (2 / 4) ** 2, 2 / 4**2
    expected = 0.5 * np.sqrt(together + (np.sqrt(2) - 1) * alone)
    assert half_sample_error(flags, tokens, table) == pytest.approx(expected, rel=1e-12)


def _drawn_by_document(rng: np.random.Generator, n_documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts of active latents of tokens, and their documents: each document has a level of its own."""
    lengths = rng.integers(20, 120, n_documents)
    documents = np.repeat(np.arange(n_documents), lengths)
    level = 16 * np.exp(0.2 * rng.standard_normal(n_documents))
    return rng.poisson(level[documents]), documents


def test_the_error_of_an_integer_quantile_is_its_spread_over_samples() -> None:
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(120):
        l0, documents = _drawn_by_document(rng, 60)
        m = int(l0.max()) + 1
        counts = np.bincount(documents % N_BLOCKS * m + l0, minlength=N_BLOCKS * m).reshape(N_BLOCKS, m)
        values.append(np.quantile(l0, 0.95))
        errors.append(integer_quantile_error(counts.astype(float), 0.95) or 0.0)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(values), rel=0.25)
    assert np.mean(np.array(errors) > 0) > 0.9


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
