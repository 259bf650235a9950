"""One-to-one matching: what it promises, whatever the method."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from verifier import best_total, similarities, verify

from saebench.api import SuiteError
from saebench.matching import cosine_matrix, match, match_cosines, match_saes
from saebench.matching.assignment import match_factors
from saebench.matching.solve.dense import DENSE_ALLOWED

METHODS = ["dense", "sparse"]


def rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


class Sae:
    def __init__(self, W_enc: Any, W_dec: Any) -> None:
        self.W_enc, self.W_dec = W_enc, W_dec


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(5, 5), (4, 6), (6, 4)])
@pytest.mark.parametrize("signed", [True, False])
def test_optimal_against_every_assignment(shape: tuple[int, int], signed: bool, method: Any) -> None:
    A, B = rows(shape[0], 3), rows(shape[1], 3, 1)
    found = match(A, B, signed=signed, method=method)
    cosines = cosine_matrix(A, B)
    score = cosines if signed else np.abs(cosines)
    if shape[0] <= shape[1]:
        best = max(sum(score[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(shape[1]), shape[0]))
    else:
        best = max(sum(score[i, j] for j, i in enumerate(chosen)) for chosen in permutations(range(shape[0]), shape[1]))
    assert found.total == pytest.approx(best, rel=1e-12)
    assert found.cosines == pytest.approx(score[found.rows, found.columns], abs=1e-15)
    assert found.total == found.cosines.sum()
    assert found.proven
    verify(found, [(A, B)], signed=signed)


def test_a_matching_worked_out_by_hand() -> None:
    """Each for itself would take the first direction; together they do better."""
    A = np.array([[1.0, 0.0], [4.0, 3.0]])
    B = np.array([[0.0, 2.0], [5.0, 0.0]])  # cosines [[0, 1], [0.6, 0.8]]
    for method in METHODS:
        found = match(A, B, method=method)  # type: ignore[arg-type]
        assert found.rows.tolist() == [0, 1]
        assert found.columns.tolist() == [1, 0]
        assert found.cosines == pytest.approx([1, 0.6])
        assert found.total == pytest.approx(1.6)
        assert (found.row_prices.sum() + found.column_prices.sum()) == pytest.approx(1.6)


# ---- permutations and other things that must not matter
# ---------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("extra", [0, 40])
def test_a_planted_permutation_is_found(method: Any, noise: float, extra: int) -> None:
    A = torch.from_numpy(rows(300, 32)).float()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    scale = 0.1 + torch.rand(300, 1, generator=torch.Generator().manual_seed(2))
    B = (scale * (A + noise * torch.randn(A.shape, generator=torch.Generator().manual_seed(1))))[order]
    B = torch.cat([B, torch.from_numpy(rows(extra, 32, 3)).float()])
    for found in (match(A, B, method=method), match(-A, B, signed=False, method=method)):
        assert found.proven
        assert torch.equal(order[torch.from_numpy(found.columns)], torch.arange(300))
        assert np.median(found.cosines) == pytest.approx((1 + noise**2) ** -0.5, abs=1e-12 + 0.1 * noise**2)
    turned = match(B, A, method=method)
    assert torch.equal(order[torch.from_numpy(turned.rows)], torch.from_numpy(turned.columns))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 30, 700])
def test_identical_matrices_agree_in_full(n: int, method: Any) -> None:
    A = rows(n, 8)
    for other in (A, A * np.geomspace(1e-200, 1e200, n)[:, None]):
        found = match(A, other, method=method)
        assert found.columns.tolist() == list(range(n))
        assert found.cosines == pytest.approx(np.ones(n), abs=1e-14)
        assert found.cosines.max() <= 1
        assert found.total == pytest.approx(n, rel=1e-14)
        assert found.proven


@pytest.mark.parametrize("which", ["decoder", "encoder", "both"])
@pytest.mark.parametrize("signed", [True, False])
def test_identical_checkpoints_agree_in_full(which: Any, signed: bool) -> None:
    sae = Sae(torch.from_numpy(rows(100, 8)).float(), torch.from_numpy(rows(100, 8, 1)).float())
    for method in METHODS:
        found = match_saes(sae, sae, which, signed=signed, method=method)
        assert found.total == pytest.approx(100, rel=1e-14)
        assert found.columns.tolist() == list(range(100))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(200, 200), (150, 220)])
@pytest.mark.parametrize("signed", [True, False])
def test_what_must_not_matter(method: Any, shape: tuple[int, int], signed: bool) -> None:
    A, B = rows(shape[0], 12), rows(shape[1], 12, 1)
    B[: shape[0] // 2] += 2 * A[: shape[0] // 2]
    rng = np.random.default_rng(2)
    found = match(A, B, signed=signed, method=method)
    pairs = dict(zip(found.rows.tolist(), found.columns.tolist(), strict=True))

    turned = match(B, A, signed=signed, method=method)
    assert dict(zip(turned.columns.tolist(), turned.rows.tolist(), strict=True)) == pairs
    assert turned.total == pytest.approx(found.total, rel=1e-13)
    assert len(turned.row_prices) == shape[1]
    assert len(turned.column_prices) == shape[0]

    scaled = match(
        A * rng.uniform(0.01, 100, (shape[0], 1)),
        B * rng.uniform(0.01, 100, (shape[1], 1)),
        signed=signed,
        method=method,
    )
    assert scaled.columns.tolist() == found.columns.tolist()
    assert scaled.cosines == pytest.approx(found.cosines, abs=1e-14)

    rotation = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    rotated = match(A @ rotation, B @ rotation, signed=signed, method=method)
    assert rotated.columns.tolist() == found.columns.tolist()

    p, q = rng.permutation(shape[0]), rng.permutation(shape[1])
    permuted = match(A[p], B[q], signed=signed, method=method)
    assert {int(p[i]): int(q[j]) for i, j in zip(permuted.rows, permuted.columns, strict=True)} == pairs

    again = match(A, B, signed=signed, method=method)
    for name in ("rows", "columns", "cosines", "row_prices", "column_prices"):
        assert np.array_equal(getattr(again, name), getattr(found, name))  # bit for bit
    assert again.relative_gap == found.relative_gap

    flips = rng.choice([-1.0, 1.0], (shape[0], 1))
    flipped = match(flips * A, B, signed=signed, method=method)
    assert (flipped.columns.tolist() == found.columns.tolist()) == (not signed)


@pytest.mark.parametrize("method", METHODS)
def test_same_answer_twice_where_all_are_ties(method: Any) -> None:
    A, B = np.ones((60, 2)), np.ones((60, 2))
    assert match(A, B, method=method).columns.tolist() == match(A, B, method=method).columns.tolist()


def test_methods_and_types_agree() -> None:
    A, B = rows(300, 16).astype(np.float32), rows(260, 16, 1).astype(np.float32)
    expected = match(A, B, method="dense")
    for kind in (
        np.float64,
        torch.tensor,
        lambda x: torch.from_numpy(x).double(),
        np.asfortranarray,
        np.ndarray.tolist,
    ):
        found = match(kind(A), kind(B), method="sparse")
        assert found.columns.tolist() == expected.columns.tolist()
        assert found.cosines == pytest.approx(expected.cosines, abs=1e-14)
    half = torch.from_numpy(A).bfloat16(), torch.from_numpy(B).bfloat16()
    verify(match(*half, method="sparse"), [half])


def test_sign_counts_unless_told_otherwise() -> None:
    A = np.eye(3)
    for method in METHODS:
        assert match(A, -A, method=method).total == 0  # type: ignore[arg-type]
        assert match(A, -A, signed=False, method=method).total == pytest.approx(3)  # type: ignore[arg-type]


# ---- odd ones
# ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_zero_rows_have_cosine_zero(method: Any) -> None:
    A = np.vstack([np.zeros(4), np.eye(4)[0]])
    assert match(A, A, method=method).cosines.tolist() == [0, 1]
    nothing = match(np.zeros((3, 4)), np.zeros((5, 4)), method=method)
    assert nothing.total == 0
    assert nothing.proven
    verify(nothing, [(np.zeros((3, 4)), np.zeros((5, 4)))])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(6, 6), (6, 9), (9, 6)])
def test_a_row_that_has_only_opposites_takes_the_zero_row(method: Any, shape: tuple[int, int]) -> None:
    """The best of the rows with a direction among themselves is not the best of all."""
    A, B = 1 + 0.1 * rows(shape[0], 3), -(1 + 0.1 * rows(shape[1], 3, 1))
    B[:4] = 0
    A[:3] *= -1
    found = match(A, B, method=method)
    verify(found, [(A, B)])
    assert found.proven
    assert found.total == pytest.approx(best_total([(A, B)]), abs=1e-13)


@pytest.mark.parametrize("method", [*METHODS, "auto"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0)])
def test_a_side_without_rows_has_no_pair(method: Any, shape: tuple[int, int]) -> None:
    found = match(np.zeros((shape[0], 3)), np.zeros((shape[1], 3)), method=method)
    assert len(found.rows) == len(found.columns) == 0
    assert found.total == found.relative_gap == 0
    assert found.proven
    verify(found, [(np.zeros((shape[0], 3)), np.zeros((shape[1], 3)))])


@pytest.mark.parametrize("method", METHODS)
def test_no_width_at_all(method: Any) -> None:
    assert match(np.zeros((3, 0)), np.zeros((4, 0)), method=method).cosines.tolist() == [0, 0, 0]


@pytest.mark.parametrize("method", METHODS)
def test_both_sides_of_an_sae_count_alike(method: Any) -> None:
    a, b = (Sae(rows(40, 6, seed), rows(40, 5, seed + 1)) for seed in (0, 2))
    factors = [(a.W_dec, b.W_dec), (a.W_enc, b.W_enc)]
    for signed in (True, False):
        found = match_saes(a, b, "both", signed=signed, method=method)
        verify(found, factors, signed=signed)
        mean = similarities(factors, signed)
        assert found.cosines == pytest.approx(mean[found.rows, found.columns], abs=1e-14)
        assert found.total == pytest.approx(best_total(factors, signed), rel=1e-13)


def test_a_matrix_of_cosines_can_be_matched_itself() -> None:
    c = cosine_matrix(rows(20, 4), rows(30, 4, 1))
    assert match_cosines(c).total == pytest.approx(match(rows(20, 4), rows(30, 4, 1)).total, rel=1e-14)
    assert match_cosines(-c, signed=False).columns.tolist() == match_cosines(c, signed=False).columns.tolist()
    turned = match_cosines(c.T)
    assert turned.total == pytest.approx(match_cosines(c).total, rel=1e-14)
    assert (turned.row_prices >= 0).all()
    with pytest.raises(SuiteError, match=r"cosines to match: got shape \[3\]; allowed is a matrix of finite numbers"):
        match_cosines(np.ones(3))
    with pytest.raises(SuiteError, match="finite"):
        match_cosines(np.array([[1.0, np.nan]]))


def test_cosines_themselves() -> None:
    c = cosine_matrix(np.array([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, -2.0]]))
    assert c == pytest.approx(np.array([[0.6, -0.8], [0.0, 0.0]]))
    A = rows(9, 3) * np.geomspace(1e-300, 1e300, 9)[:, None]
    assert np.diag(cosine_matrix(A, A)) == pytest.approx(1, abs=1e-15)
    assert np.abs(cosine_matrix(A, A)).max() <= 1


def test_a_module_may_say_its_own_directions() -> None:
    class Own:
        W_dec = torch.zeros(2, 2)

        def decoder_directions(self) -> torch.Tensor:
            return torch.eye(2, requires_grad=True)

    assert match_saes(Own(), Own()).total == pytest.approx(2)


# ---- errors
# -----------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(SuiteError, match="A has width 3, B has 4; both must come from one site"):
        match(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(SuiteError, match="A has width 3, B has 4"):
        cosine_matrix(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(SuiteError, match="B: 1 of 2 rows hold values that are not finite, first row 1"):
        match(np.ones((2, 2)), np.array([[1.0, 1.0], [np.nan, 0.0]]))
    with pytest.raises(SuiteError, match="A: 1 of 2 rows hold values that are not finite, first row 0"):
        cosine_matrix(np.array([[np.inf, 1.0], [1.0, 0.0]]), np.ones((2, 2)))
    with pytest.raises(SuiteError, match=r"A: got shape \[3\]"):
        match(np.ones(3), np.ones((2, 3)))
    with pytest.raises(SuiteError, match="neither encoder_directions"):
        match_saes(type("Sae", (), {"W_dec": np.eye(2)})(), type("Sae", (), {"W_dec": np.eye(2)})(), which="encoder")
    with pytest.raises(SuiteError, match="which: got 'middle', allowed are decoder, encoder, both"):
        match_saes(object(), object(), which="middle")  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="the matrices of A have 3 and 4 rows; they must have a row a latent"):
        match_factors([(np.ones((3, 2)), np.ones((3, 2))), (np.ones((4, 2)), np.ones((3, 2)))])
    with pytest.raises(SuiteError, match="the matrices of B have 3 and 4 rows"):
        match_saes(Sae(np.eye(3), np.eye(3)), Sae(np.ones((4, 3)), np.ones((3, 3))), "both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "quick"}, "method: got 'quick', allowed are auto, dense, sparse"),
        ({"solver": "gurobi"}, "solver: got 'gurobi', allowed are auto, scipy, ortools"),
        ({"time_limit_s": 0}, "time_limit_s: got 0, allowed is any number over 0, or None"),
        ({"time_limit_s": float("nan")}, "time_limit_s: got nan"),
        ({"time_limit_s": "1"}, "time_limit_s: got '1'"),
        ({"memory_limit_bytes": -1}, "memory_limit_bytes: got -1, allowed is any number over 0"),
    ],
)
def test_arguments_that_are_not_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        match(np.eye(2), np.eye(2), **options)


def test_dense_is_refused_where_it_would_hold_too_much() -> None:
    large = np.ones((DENSE_ALLOWED + 1, 1))
    with pytest.raises(
        SuiteError, match=r"method: 'dense' holds all 4,097 x 2 cosines and is allowed up to 4,096\. Use 'sparse'"
    ):
        match(large, np.ones((2, 1)), method="dense")


# ---- GPU
# --------------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_on_a_gpu(dtype: torch.dtype, signed: bool, method: Any) -> None:
    A, B = (torch.from_numpy(rows(900, 24, seed)).to(dtype) for seed in (0, 1))
    A[5] = 0
    for shape in ((900, 900), (700, 900), (900, 700)):
        a, b = A[: shape[0]], B[: shape[1]]
        found = match(a.cuda(), b.cuda(), signed=signed, method=method)
        verify(found, [(a, b)], signed=signed)
        assert found.proven
        assert found.total == pytest.approx(match(a, b, signed=signed, method="dense").total, rel=1e-12)
        sent = match(a, b, signed=signed, method=method, device="cuda")  # from here to there
        assert sent.columns.tolist() == found.columns.tolist()
        mixed = match(a.cuda(), b, signed=signed, method=method)
        assert mixed.columns.tolist() == found.columns.tolist()
