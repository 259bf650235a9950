"""Subspace agreement."""

from __future__ import annotations

import numpy as np
import pytest

from saebench.matching import subspace_agreement


def test_another_basis_of_the_same_span_agrees() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0][:3]
    A, B = rng.standard_normal((8, 3)) @ basis, rng.standard_normal((9, 3)) @ basis
    found = subspace_agreement(A, B, energy=0.999)
    assert (found.value, found.rank, found.reason) == (pytest.approx(1, abs=1e-9), 3, None)


def test_orthogonal_spans_are_under_chance() -> None:
    eye = np.eye(12)
    assert subspace_agreement(eye[:4], eye[4:8]).value == pytest.approx(-(4 / 12) / (8 / 12))


@pytest.mark.parametrize("rows", [4, 60])
def test_the_null_holds_its_mean_and_its_spread(rows: int) -> None:
    """The closed form against draws, for fewer and for more rows than dimensions."""
    rng = np.random.default_rng(1)
    draws = [subspace_agreement(rng.standard_normal((rows, 14)), rng.standard_normal((rows, 14))) for _ in range(1500)]
    values = np.array([draw.value for draw in draws], dtype=float)
    null = draws[0].null
    assert null is not None
    assert values.mean() == pytest.approx(0, abs=4 * values.std() / np.sqrt(len(values)))
    assert values.std() == pytest.approx(null.high / 1.96, rel=0.08)
    assert np.mean((values >= null.low) & (values <= null.high)) == pytest.approx(0.95, abs=0.025)


def test_half_shared() -> None:
    eye = np.eye(100)
    assert subspace_agreement(eye[:4], eye[2:6]).value == pytest.approx((0.5 - 0.04) / 0.96)


def test_principal_angles_by_hand() -> None:
    # planes of four dimensions that share one axis and stand at 60 degrees in the other: cos^2 are 1 and 1/4
    A = np.eye(4)[:2]
    B = np.array([[1.0, 0, 0, 0], [0, 0.5, np.sqrt(3) / 2, 0]])
    found = subspace_agreement(A, B)
    assert (found.value, found.rank) == (pytest.approx((5 / 8 - 1 / 2) / (1 / 2)), 2)


def test_sign_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((5, 16)), rng.standard_normal((7, 16))
    value = subspace_agreement(A, B).value
    assert subspace_agreement(-A * np.arange(1, 6)[:, None], B).value == pytest.approx(value, rel=1e-9)
    assert subspace_agreement(B, A).value == pytest.approx(value, rel=1e-9)


def test_many_rows_are_as_few() -> None:
    """The triangular factor stands for the rows: the same as the singular vectors of all of them."""
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((200, 10)) * np.geomspace(1, 50, 10), rng.standard_normal((90, 10))
    found = subspace_agreement(A, B)
    bases = []
    for rows in (A, B):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        bases.append(np.linalg.eigh(unit.T @ unit)[1][:, ::-1][:, : found.rank])
    overlap = np.square(bases[0].T @ bases[1]).sum() / found.rank
    assert found.value == pytest.approx((overlap - found.rank / 10) / (1 - found.rank / 10), rel=1e-9)


def test_null_where_there_is_nothing_to_compare() -> None:
    assert "two unmatched latents" in (subspace_agreement(np.eye(4)[:1], np.eye(4)).reason or "")
    assert "two unmatched latents" in (subspace_agreement(np.zeros((5, 4)), np.eye(4)).reason or "")
    assert "fill all 4 dimensions" in (subspace_agreement(np.eye(4), np.eye(4)).reason or "")
