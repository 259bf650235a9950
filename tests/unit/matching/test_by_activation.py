"""Matching by correlation of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from saebench.api import SparseCodes, SuiteError
from saebench.matching.agreement import by_activation
from saebench.matching.agreement.by_activation import ActivationMatch, Firing, block_norms, codes_matrix


def activation_match(A: csr_array, B: csr_array, **options: Any) -> ActivationMatch:
    return by_activation.activation_match(Firing.of(A), Firing.of(B), **options)


def codes(tokens: int, n: int, k: int, seed: int, signed: bool = True) -> np.ndarray:
    """Dense TopK codes of one stream by random encoders; with `signed` False the largest by size, signs kept."""
    x = np.random.default_rng(0).standard_normal((tokens, 16))
    z = x @ np.random.default_rng(seed).standard_normal((16, n))
    size = z if signed else np.abs(z)
    kept = np.where(size >= np.sort(size, 1)[:, -k][:, None], z, 0.0)
    return np.maximum(kept, 0) if signed else kept


def slow(A: np.ndarray, B: np.ndarray, signed: bool) -> tuple[float, float]:
    """Every correlation by NumPy, the dense assignment by SciPy."""
    r = np.zeros((A.shape[1], B.shape[1]))
    for i, a in enumerate(A.T):
        for j, b in enumerate(B.T):
            if a.std() > 0 and b.std() > 0:
                r[i, j] = np.corrcoef(a, b)[0, 1]
    weights = np.maximum(r, 0) if signed else np.abs(r)
    rows, columns = linear_sum_assignment(weights, maximize=True)
    matched = weights[rows, columns]
    return matched.sum() / min(r.shape), (matched > 0.7).sum() / min(r.shape)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_slow_reference(signed: bool, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr(by_activation, "DENSE_PAIRS", 0)
        monkeypatch.setattr(by_activation, "_CELLS", 64)  # blocks of two latents
    A, B = codes(300, 40, 4, 1, signed), codes(300, 32, 4, 1, signed)[:, ::-1].copy()
    B[:, 3:] += codes(300, 32, 4, 2, signed)[:, 3:]
    A[:, 5] = 0
    B[:, 7] = 0
    found = activation_match(csr_array(A), csr_array(B), signed=signed, floor=0.0 if signed else 1e-9)
    correlation, shared = slow(A, B, signed)
    assert found.correlation + found.bound >= correlation - 1e-12
    assert found.shared == pytest.approx(shared)
    if dense or signed:
        assert found.correlation == pytest.approx(correlation, rel=1e-12)
        assert found.bound == pytest.approx(0, abs=1e-12)
    assert found.silent == tuple(int((side.std(0) == 0).sum()) for side in (A, B))
    assert 5 not in found.rows
    assert len(set(found.rows.tolist())) == len(set(found.columns.tolist())) == len(found.rows)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_bound_holds_above_the_floor(signed: bool, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    A, B = csr_array(codes(200, 60, 5, seed, signed)), csr_array(codes(200, 50, 5, seed + 10, signed))
    exact = activation_match(A, B, signed=signed)
    monkeypatch.setattr(by_activation, "DENSE_PAIRS", 0)
    for floor in (0.05, 0.3, 0.6):
        found = activation_match(A, B, signed=signed, floor=floor)
        assert found.correlation <= exact.correlation + 1e-12
        assert exact.correlation <= found.correlation + found.bound + 1e-12
        assert found.floor == floor
    # even under a high floor the bound is far under what leaving out alone would allow
    assert activation_match(A, B, signed=True, floor=0.05).bound < 0.05


def test_the_limit_of_the_dense_way_is_a_number_of_pairs_of_latents_that_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_activation.DENSE_PAIRS == 4096**2
    A, B = codes(200, 30, 4, 1), codes(200, 40, 4, 2)
    varying = int((A.std(0) > 0).sum() * (B.std(0) > 0).sum())
    for limit, floor in ((varying, 0.0), (varying - 1, by_activation.FLOOR)):
        monkeypatch.setattr(by_activation, "DENSE_PAIRS", limit)
        assert activation_match(csr_array(A), csr_array(B)).floor == floor


def test_a_side_of_more_than_4096_latents_is_still_dense_where_the_other_is_small() -> None:
    wide = np.random.default_rng(0).random((50, 4200))
    assert activation_match(csr_array(wide[:, :2]), csr_array(wide)).correlations == pytest.approx([1, 1])
    assert activation_match(csr_array(wide[:, :2]), csr_array(wide)).floor == 0


def test_by_hand() -> None:
    # two latents on four tokens; a0 and b1 fire on the same token: r = 1. a1 fires on tokens 1 and 2, b0 on 2:
    # means 1/2 and 1/4, deviations 1/2 and sqrt(3)/4; r = (1/4 - 1/8) / (sqrt(3)/8) = 1/sqrt(3)
    A = np.array([[3.0, 0], [0, 1], [0, 1], [0, 0]])
    B = np.array([[0, 0.5], [0, 0], [7, 0], [0, 0]])
    found = activation_match(csr_array(A), csr_array(B))
    assert found.correlations == pytest.approx([1, 1 / np.sqrt(3)])
    assert found.columns.tolist() == [1, 0]
    assert found.correlation == pytest.approx((1 + 1 / np.sqrt(3)) / 2)
    assert found.shared == 1 / 2
    assert found.tokens == 4


def test_order_and_scale_do_not_matter_and_oneself_is_one() -> None:
    A, B = codes(400, 30, 4, 1), codes(400, 30, 4, 2)
    rng = np.random.default_rng(3)
    first = activation_match(csr_array(A), csr_array(B))
    again = activation_match(csr_array(A), csr_array(B[:, rng.permutation(30)] * (rng.random(30) + 0.1)))
    assert again.correlation == pytest.approx(first.correlation, rel=1e-9)
    assert activation_match(csr_array(B), csr_array(A)).correlation == pytest.approx(first.correlation, rel=1e-9)
    firing = int((A.std(0) > 0).sum())
    assert activation_match(csr_array(A), csr_array(A)).correlation == pytest.approx(firing / 30)
    tokens = rng.permutation(400)
    assert activation_match(csr_array(A[tokens]), csr_array(B[tokens])).correlation == pytest.approx(first.correlation)


def test_silent_and_constant_latents_count_in_the_denominator() -> None:
    A = np.zeros((50, 4))
    A[::5, 0] = 1
    A[:, 1] = 2.5  # always the same: no correlation
    found = activation_match(csr_array(A), csr_array(A))
    assert found.correlation == pytest.approx(1 / 4)
    assert found.silent == (3, 3)
    nothing = activation_match(csr_array(A * 0), csr_array(A))
    assert (nothing.correlation, nothing.shared, nothing.bound, len(nothing.rows)) == (0, 0, 0, 0)


def test_shifting_is_the_chance_level() -> None:
    A = csr_array(codes(2000, 40, 4, 1))
    firing, rolled = Firing.of(A), csr_array(np.roll(A.toarray(), -700, axis=0))
    assert by_activation.activation_match(firing, firing).correlation == pytest.approx(1)
    away = by_activation.activation_match(firing, firing.shifted(700))
    assert away.correlation == pytest.approx(activation_match(A, rolled).correlation, rel=1e-12)
    assert away.correlation < 0.15
    assert by_activation.activation_match(firing.shifted(700), Firing.of(rolled)).correlation == pytest.approx(1)


def test_norms_of_blocks_do_not_see_their_basis() -> None:
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((60, 6)) * (rng.random((60, 6)) < 0.4)
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    turned_codes = np.concatenate([dense[:, :3] @ turn, dense[:, 3:]], 1)
    expected = np.stack([np.linalg.norm(dense[:, :3], axis=1), np.linalg.norm(dense[:, 3:], axis=1)], 1)
    assert block_norms(csr_array(dense), 3).toarray() == pytest.approx(expected)
    assert block_norms(csr_array(turned_codes), 3).toarray() == pytest.approx(expected)


def test_codes_matrix_joins_batches_and_drops_zeros() -> None:
    z = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, -3.0], [0.0, 0.0, 0.0]])
    batches = [SparseCodes.from_dense(z[:2]), SparseCodes.from_topk(torch.zeros(1, 2), torch.tensor([[0, 1]]), 3)]
    found = codes_matrix(batches)
    assert found.nnz == 3
    assert np.array_equal(found.toarray(), z.numpy())
    for empty in ([], [SparseCodes.from_dense(z[:0])]):
        with pytest.raises(SuiteError, match="holds no tokens"):
            codes_matrix(empty)


def test_other_tokens_are_refused() -> None:
    with pytest.raises(SuiteError, match="3 and 4 tokens"):
        activation_match(csr_array(np.eye(3)), csr_array(np.eye(4)))
