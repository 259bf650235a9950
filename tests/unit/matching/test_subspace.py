"""Subspace agreement."""

from __future__ import annotations

import numpy as np
import pytest

from saebench.matching import subspace_agreement


def test_another_basis_of_the_same_span_agrees() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((20, 20)))[0][:3]
    A, B = rng.standard_normal((8, 3)) @ basis, rng.standard_normal((9, 3)) @ basis
    value, reason = subspace_agreement(A, B, energy=0.999)
    assert (value, reason) == (pytest.approx(1, abs=1e-9), None)


def test_orthogonal_spans_are_under_chance_and_random_ones_at_it() -> None:
    eye = np.eye(12)
    assert subspace_agreement(eye[:4], eye[4:8])[0] == pytest.approx(-(4 / 12) / (8 / 12))
    rng = np.random.default_rng(1)
    values = [subspace_agreement(rng.standard_normal((6, 30)), rng.standard_normal((6, 30)))[0] for _ in range(200)]
    assert np.mean([v for v in values if v is not None]) == pytest.approx(0, abs=0.02)


def test_half_shared() -> None:
    eye = np.eye(100)
    assert subspace_agreement(eye[:4], eye[2:6])[0] == pytest.approx((0.5 - 0.04) / 0.96)


def test_sign_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(2)
    A, B = rng.standard_normal((5, 16)), rng.standard_normal((7, 16))
    value = subspace_agreement(A, B)[0]
    assert subspace_agreement(-A * np.arange(1, 6)[:, None], B)[0] == pytest.approx(value, rel=1e-9)
    assert subspace_agreement(B, A)[0] == pytest.approx(value, rel=1e-9)


def test_null_where_there_is_nothing_to_compare() -> None:
    assert "two unmatched latents" in (subspace_agreement(np.eye(4)[:1], np.eye(4))[1] or "")
    assert "two unmatched latents" in (subspace_agreement(np.zeros((5, 4)), np.eye(4))[1] or "")
    assert "fill all 4 dimensions" in (subspace_agreement(np.eye(4), np.eye(4))[1] or "")
