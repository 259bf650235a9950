"""Stability scores of pairs, and their mean over seeds."""

from __future__ import annotations

import numpy as np
import pytest

from saebench.matching.stability import CURVE, THRESHOLD, Latents, mean_over_pairs, over_pairs, pair_scores


def directions(n: int = 40, d: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def test_identical_up_to_order_and_scale() -> None:
    A = directions()
    order = np.random.default_rng(1).permutation(40)
    scores = pair_scores(Latents(A, A, np.zeros(40, bool)), Latents(2 * A[order], A[order], np.zeros(40, bool)))
    assert {
        id: scores.values[id] for id in ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs")
    } == pytest.approx(dict.fromkeys(("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs"), 1.0))
    assert scores.values["subspace-agreement"] is None
    assert "unmatched" in scores.reasons["subspace-agreement"]
    assert scores.coverage == (1, 1)


def test_threshold_is_strict_for_sfr_and_not_for_strict_shared() -> None:
    # cosine exactly 0.7 in float64: pairs (e0, e0 * 0.7 + ...) are made so that the dot product is the double 0.7
    A = np.array([[1.0, 0.0]])
    B = np.array([[0.7, np.sqrt(1 - 0.7**2)]])
    scores = pair_scores(Latents(A, A), Latents(B, B))
    assert scores.values["matched-cosine"] == THRESHOLD
    assert scores.values["sfr"] == 0
    assert scores.values["strict-shared"] == 1


def test_unequal_sizes_divide_by_the_smaller() -> None:
    A = directions(60, 64)
    scores = pair_scores(Latents(A), Latents(A[:15]))
    assert scores.values["sfr"] == 1
    assert scores.coverage == (0.25, 1.0)
    assert scores.reasons["strict-shared"] == "the encoder directions are not known"
    assert scores.reasons["sfr-alive"] == "it is not known which latents are dead"
    back = pair_scores(Latents(A[:15]), Latents(A))
    for id in ("sfr", "matched-cosine", "mmcs"):
        assert back.values[id] == pytest.approx(scores.values[id])


def test_dead_latents_at_shared_initial_directions_do_not_count_as_shared() -> None:
    A, B = directions(20, 64), directions(20, 64, 1)
    B[:10] = A[:10]  # never trained, so never moved
    dead = np.arange(20) < 10
    scores = pair_scores(Latents(A, dead=dead), Latents(B, dead=dead))
    assert (scores.values["sfr"], scores.values["sfr-alive"]) == (0.5, 0)
    none_alive = pair_scores(Latents(A, dead=np.ones(20, bool)), Latents(B, dead=dead))
    assert none_alive.values["sfr-alive"] is None
    assert none_alive.reasons["sfr-alive"] == "one SAE has no latent that is alive"


def test_strict_needs_encoder_and_decoder_to_agree() -> None:
    A = np.eye(6)
    swapped = A[[1, 0, 2, 3, 4, 5]]
    assert pair_scores(Latents(A, A), Latents(A, swapped)).values["strict-shared"] == pytest.approx(4 / 6)


def test_signed_latents_match_on_the_absolute_cosine() -> None:
    A = directions()
    flip = np.where(np.arange(40) % 2, 1, -1)[:, None]
    assert pair_scores(Latents(A, A), Latents(A * flip, A * flip)).values["sfr"] == 0.5
    scores = pair_scores(Latents(A, A), Latents(A * flip, A * flip), signed=False)
    assert (scores.values["sfr"], scores.values["strict-shared"]) == (1, 1)
    assert scores.values["mmcs"] == pytest.approx(1)


def test_mmcs_is_at_least_the_matched_cosine_and_random_is_at_chance() -> None:
    scores = pair_scores(Latents(directions(200, 32)), Latents(directions(200, 32, 1)))
    values = scores.values
    assert values["mmcs"] is not None
    assert values["mmcs"] >= (values["matched-cosine"] or 0)
    assert values["matched-cosine"] == pytest.approx(values["matched-cosine-null"], abs=0.01)


def test_orphans_that_span_the_same_space_agree_as_a_subspace() -> None:
    # a Hadamard rotation of four axes: every cosine is 1/2 in size, so no pair is shared, yet the span is the same
    hadamard = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
    eye = np.eye(30)
    A, B = np.vstack([eye[:4], eye[5:15]]), np.vstack([hadamard @ eye[:4], eye[5:15]])
    scores = pair_scores(Latents(A), Latents(B[np.random.default_rng(5).permutation(14)]))
    assert scores.values["sfr"] == 10 / 14
    assert scores.values["subspace-agreement"] == pytest.approx(1)
    # dead latents are no orphans: with those axes dead in A there is nothing left to compare
    dead = np.arange(14) < 4
    assert pair_scores(Latents(A, dead=dead), Latents(B, dead=dead)).values["subspace-agreement"] is None


def test_curve_falls_and_passes_through_sfr() -> None:
    A = directions()
    B = A + 0.8 * directions(seed=3)
    scores = pair_scores(Latents(A), Latents(B))
    assert scores.curve[CURVE.index(0.7)] == scores.values["sfr"]
    assert np.all(np.diff(scores.curve) <= 0)


def test_jackknife_over_seeds() -> None:
    assert mean_over_pairs({(0, 1): 0.5}, 2) == (0.5, None)
    value, error = mean_over_pairs({(0, 1): 1.0, (0, 2): 0.4, (1, 2): 0.1}, 3)
    assert value == pytest.approx(0.5)
    # means without member 0, 1, 2: 0.1, 0.4, 1.0
    assert error == pytest.approx(np.sqrt(2 / 3 * ((0.1 - 0.5) ** 2 + (0.4 - 0.5) ** 2 + (1.0 - 0.5) ** 2)))


def test_every_pair_of_seeds() -> None:
    items = [Latents(directions(12, 8, seed)) for seed in range(4)]
    assert sorted(over_pairs(items)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
