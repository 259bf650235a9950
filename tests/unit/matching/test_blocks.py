"""Agreement of blocks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.linalg import subspace_angles

from saebench.api import SuiteError
from saebench.matching.agreement.blocks import block_agreement, block_null


def rows(blocks: int, r: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((blocks * r, d))


def turned(A: np.ndarray, r: int, seed: int = 1) -> np.ndarray:
    """Each block under a basis of its own (not orthogonal), blocks in another order."""
    rng = np.random.default_rng(seed)
    blocks = A.reshape(-1, r, A.shape[1])[rng.permutation(len(A) // r)]
    return np.concatenate([rng.standard_normal((r, r)) @ block for block in blocks])


def test_another_basis_and_order_of_the_same_blocks_agrees_wholly() -> None:
    A = rows(6, 3, 20)
    found = block_agreement(A, turned(A, 3), 3)
    assert found.value == pytest.approx(1)
    assert found.overlap == pytest.approx(1)


def test_slow_reference() -> None:
    """Principal angles of every pair of blocks by SciPy, every order of blocks tried."""
    A, B = rows(4, 2, 7), rows(5, 2, 7, 1)
    s = np.array(
        [[np.mean(np.cos(subspace_angles(a.T, b.T)) ** 2) for b in B.reshape(5, 2, 7)] for a in A.reshape(4, 2, 7)]
    )
    best = max(sum(s[i, j] for i, j in enumerate(order)) for order in permutations(range(5), 4)) / 4
    found = block_agreement(A, B, 2)
    assert found.overlap == pytest.approx(best)
    assert found.value == pytest.approx((best - 2 / 7) / (1 - 2 / 7))
    assert block_agreement(B, A, 2).value == pytest.approx(found.value)


def test_by_hand() -> None:
    eye = np.eye(8)
    # blocks {0 1} and {2 3} against {0 2} and {4 5}: cos^2 means are 1/2 0 / 1/2 0
    found = block_agreement(eye[[0, 1, 2, 3]], eye[[0, 2, 4, 5]], 2)
    assert found.overlap == pytest.approx((1 / 2 + 0) / 2)
    assert found.value == pytest.approx((1 / 4 - 1 / 4) / (3 / 4))


def test_a_block_that_spans_less_counts_for_less() -> None:
    eye = np.eye(6)
    A = np.stack([eye[0], eye[0], eye[2], eye[3]])
    assert block_agreement(A, A, 2).overlap == pytest.approx(3 / 4)
    assert block_agreement(np.zeros((4, 6)), A, 2).overlap == 0


def test_blocks_of_one_are_squared_cosines() -> None:
    A, B = rows(5, 1, 9), rows(5, 1, 9, 1)
    unit = [X / np.linalg.norm(X, axis=1, keepdims=True) for X in (A, B)]
    squared = (unit[0] @ unit[1].T) ** 2
    best = max(sum(squared[i, j] for i, j in enumerate(order)) for order in permutations(range(5))) / 5
    assert block_agreement(A, B, 1).overlap == pytest.approx(best)


def test_chance() -> None:
    """One random pair lies at r / d, the best matching of many above it: what the null says."""
    single = [block_agreement(rows(1, 3, 12, seed), rows(1, 3, 12, seed + 1000), 3).value for seed in range(400)]
    assert np.mean(single) == pytest.approx(0, abs=0.03)
    null = block_null(60, 60, 12, 3)
    found = block_agreement(rows(20, 3, 12, 5), rows(20, 3, 12, 6), 3).value
    assert null.low > 0.1
    assert found == pytest.approx(null.value, abs=0.08)


def test_refusals() -> None:
    with pytest.raises(SuiteError, match="group_size: got 4, which does not divide the 6 latents"):
        block_agreement(rows(3, 2, 8), rows(3, 2, 8), 4)
    with pytest.raises(SuiteError, match="group_size: got 8 but the width is 8"):
        block_agreement(rows(2, 8, 8), rows(2, 8, 8), 8)
    with pytest.raises(SuiteError, match="A has width 8, B has 9"):
        block_agreement(rows(2, 2, 8), rows(2, 2, 9), 2)
