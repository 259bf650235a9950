"""One-to-one matching."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from saebench.api import SuiteError
from saebench.matching import cosine_matrix, match, match_saes


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 4)])
@pytest.mark.parametrize("signed", [True, False])
def test_optimal_against_every_assignment(shape: tuple[int, int], signed: bool) -> None:
    A, B = rows(shape[0], 3), rows(shape[1], 3, 1)
    found = match(A, B, signed=signed)
    cosines = cosine_matrix(A, B)
    score = cosines if signed else np.abs(cosines)
    if shape[0] <= shape[1]:
        best = max(sum(score[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(shape[1]), shape[0]))
    else:
        best = max(sum(score[i, j] for j, i in enumerate(chosen)) for chosen in permutations(range(shape[0]), shape[1]))
    assert found.total == pytest.approx(best, rel=1e-12)
    assert np.array_equal(score[found.rows, found.columns], found.cosines)
    assert found.total == found.cosines.sum()
    assert len(set(found.columns.tolist())) == len(found.columns) == min(shape)
    assert np.all(np.diff(found.rows) > 0)


def test_a_planted_permutation_is_found() -> None:
    A = torch.from_numpy(rows(64, 20)).float()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    noise = 0.05 * torch.randn(64, 20, generator=torch.Generator().manual_seed(1))
    found = match(A, (3 * A + noise)[order])
    assert torch.equal(order[torch.from_numpy(found.columns)], torch.arange(64))
    assert found.cosines.min() > 0.99


def test_identical_is_one_and_scale_does_not_matter() -> None:
    A = rows(30, 8)
    assert match(A, A).cosines == pytest.approx(np.ones(30), abs=1e-14)
    scaled = A * np.geomspace(1e-200, 1e200, 30)[:, None]
    assert match(scaled, A).cosines == pytest.approx(np.ones(30), abs=1e-14)


def test_sign_counts_unless_told_otherwise() -> None:
    A = np.eye(3)
    assert match(A, -A).total == 0
    assert match(A, -A, signed=False).total == pytest.approx(3)


def test_zero_rows_have_cosine_zero() -> None:
    A = np.vstack([np.zeros(4), np.eye(4)[0]])
    found = match(A, A)
    assert found.cosines.tolist() == [0, 1]


def test_same_answer_twice() -> None:
    A, B = np.ones((6, 2)), np.ones((6, 2))  # all ties
    assert match(A, B).columns.tolist() == match(A, B).columns.tolist()


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(SuiteError, match="A has width 3, B has 4"):
        match(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(SuiteError, match="B: 1 of 2 rows hold values that are not finite, first row 1"):
        match(np.ones((2, 2)), np.array([[1.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(SuiteError, match=r"A: got shape \[3\]"):
        match(np.ones(3), np.ones((2, 3)))
    with pytest.raises(SuiteError, match="neither encoder_directions"):
        match_saes(type("Sae", (), {"W_dec": np.eye(2)})(), type("Sae", (), {"W_dec": np.eye(2)})(), which="encoder")
    with pytest.raises(SuiteError, match="allowed are decoder, encoder, both"):
        match_saes(object(), object(), which="middle")  # type: ignore[arg-type]


def test_a_module_may_say_its_own_directions() -> None:
    class Sae:
        W_dec = torch.zeros(2, 2)

        def decoder_directions(self) -> torch.Tensor:
            return torch.eye(2, requires_grad=True)

    assert match_saes(Sae(), Sae()).total == pytest.approx(2)
