"""Stability scores of pairs, and their mean over seeds."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from saebench.matching import match, null_scores
from saebench.matching.agreement.cosines import CURVE, THRESHOLD, Latents, compare
from saebench.matching.agreement.pair import CORRECTED, mean_over_pairs, over_pairs, pair_scores


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
    assert values["matched-cosine"] == pytest.approx(scores.null["matched-cosine"].value, abs=0.01)
    assert scores.corrected["matched-cosine"] == pytest.approx(0, abs=0.01)
    assert scores.corrected["mmcs"] == pytest.approx(0, abs=0.01)


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


def test_by_hand() -> None:
    """Three latents in the plane, worked out on paper."""
    angle = np.deg2rad(60)
    A = np.array([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    B = np.array([[0.0, 1.0], [np.cos(angle), np.sin(angle)]])
    # cosines: a0 (0, 1/2), a1 (1, sqrt(3)/2), a2 (0, -1/2): best is a1-b0 and a0-b1, 3/2 in all
    scores = pair_scores(Latents(A, A, np.array([False, True, False])), Latents(B, B, np.zeros(2, bool)))
    assert scores.matching.rows.tolist() == [0, 1]
    assert scores.matching.columns.tolist() == [1, 0]
    assert scores.values["matched-cosine"] == pytest.approx(3 / 4)
    assert scores.values["sfr"] == 1 / 2
    assert scores.values["mmcs"] == pytest.approx(((1 / 2 + 1 + 0) / 3 + (1 + np.sqrt(3) / 2) / 2) / 2)
    # without a1: a0-b1 and a2-b0, 1/2 and 0, nothing shared; the indices stay those of the whole dictionary
    assert scores.values["sfr-alive"] == 0
    assert scores.matching_alive.rows.tolist() == [0, 2]
    assert scores.matching_alive.columns.tolist() == [1, 0]
    assert (scores.sizes, scores.alive, scores.coverage, scores.width) == ((3, 2), (2, 2), (1 / 3, 1 / 2), 2)


def test_corrected_takes_the_null_of_its_sizes_out() -> None:
    A = directions(50, 12)
    B = A + 0.7 * directions(50, 12, 3)
    dead = np.arange(50) < 8
    scores = pair_scores(Latents(A, A, dead), Latents(B, B))
    assert scores.values["sfr-alive"] is None
    assert scores.corrected["sfr-alive"] is None
    assert "sfr-alive" not in scores.null
    scores = pair_scores(Latents(A, A, dead), Latents(B, B, np.zeros(50, bool)))
    null = null_scores(50, 50, 12)
    for id in ("sfr", "strict-shared", "matched-cosine", "mmcs"):
        assert scores.null[id] == null.levels[id]
        level, value = null.levels[id].value, scores.values[id]
        assert value is not None
        assert scores.corrected[id] == pytest.approx((value - level) / (1 - level))
    assert scores.null["sfr-alive"] == null_scores(42, 50, 12).levels["sfr"]
    assert set(scores.corrected) == set(CORRECTED)
    assert scores.curve_null is not None
    assert scores.curve_null.tolist() == list(null.curve)


def test_no_null_where_none_is_asked_for() -> None:
    scores = pair_scores(Latents(directions()), Latents(directions(seed=1)), null=False)
    assert scores.null == {}
    assert scores.curve_null is None
    assert all(value is None for value in scores.corrected.values())


def test_another_threshold() -> None:
    A, B = directions(), directions() + 0.8 * directions(seed=3)
    low, high = (pair_scores(Latents(A), Latents(B), threshold=t, null=False) for t in (0.5, 0.9))
    assert low.values["sfr"] == low.curve[CURVE.index(0.5)]
    assert high.values["sfr"] == high.curve[CURVE.index(0.9)]


@pytest.mark.parametrize("signed", [True, False])
def test_order_scale_and_rotation_do_not_matter(signed: bool) -> None:
    rng = np.random.default_rng(4)
    A, E, dead = directions(), directions(seed=7), rng.random(40) < 0.2
    B, F, silent = A + directions(seed=3), E + directions(seed=8), rng.random(40) < 0.2
    turn = np.linalg.qr(rng.standard_normal((24, 24)))[0]
    order, scale = rng.permutation(40), rng.random((40, 1)) + 0.1
    first = pair_scores(Latents(A, E, dead), Latents(B, F, silent), signed=signed)
    again = pair_scores(
        Latents(scale * A @ turn, E @ turn, dead),
        Latents((B @ turn)[order], (F @ turn)[order], silent[order]),
        signed=signed,
    )
    assert again.values == pytest.approx(first.values, rel=1e-9)
    back = pair_scores(Latents(B, F, silent), Latents(A, E, dead), signed=signed)
    assert back.values == pytest.approx(first.values, rel=1e-9)
    assert back.null == first.null


def test_tied_encoders_are_matched_once_and_give_sfr() -> None:
    A, B = directions(), directions() + 0.6 * directions(seed=3)
    tied = pair_scores(Latents(A, 3 * A), Latents(B, B))
    assert Latents(A, 3 * A).tied
    assert not Latents(A, A[::-1]).tied
    assert tied.values["strict-shared"] == tied.values["sfr"]


def test_large_dictionaries_take_the_solver_and_agree_with_the_dense_matrix() -> None:
    A, B = directions(60, 8), directions(50, 8, 1)
    keep = np.arange(60) % 5 > 0, np.arange(50) % 7 > 0
    dense, sparse = compare(A, B, *keep), compare(A, B, *keep, method="sparse")
    assert sparse.matching.total == pytest.approx(dense.matching.total, rel=1e-9)
    assert sparse.alive.total == pytest.approx(dense.alive.total, rel=1e-9)
    assert sparse.mmcs == pytest.approx(dense.mmcs, rel=1e-6)
    for found in (dense, sparse):
        assert keep[0][found.alive.rows].all()
        assert keep[1][found.alive.columns].all()
        assert len(found.alive.rows) == min(keep[0].sum(), keep[1].sum())
    assert dense.alive.total == pytest.approx(match(A[keep[0]], B[keep[1]]).total)


@pytest.mark.parametrize("method", ["auto", "sparse"])
def test_tensors_score_as_arrays_do(method: str) -> None:
    rng = np.random.default_rng(0)
    sides = []
    for seed in (1, 2):
        rows, encoder = (directions() + 0.8 * directions(seed=seed + more) for more in (0, 10))
        sides.append((rows.astype(np.float32), encoder.astype(np.float32), rng.random(40) < 0.2))
    arrays = [Latents(*side) for side in sides]
    tensors = [Latents(torch.from_numpy(rows), torch.from_numpy(read), dead) for rows, read, dead in sides]
    first, again = (pair_scores(*pair, method=method, device="cpu") for pair in (arrays, tensors))
    assert again.values == pytest.approx(first.values, rel=1e-9)
    assert again.null == first.null


def test_a_frozen_support_is_shared_by_chance_too() -> None:
    """Random values on one sparse mask agree far more than random directions do: chance is drawn on the mask."""
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 64), dtype=bool)
    for row in mask:
        row[rng.choice(64, 4, replace=False)] = True
    A, B = (rng.standard_normal((60, 64)) * mask for _ in range(2))
    plain = pair_scores(Latents(A), Latents(B), signed=False)
    masked = pair_scores(
        Latents(A, dead=np.zeros(60, bool), support=mask),
        Latents(B, dead=np.arange(60) < 5, support=mask),
        signed=False,
    )
    assert plain.null["sfr"].value == 0
    assert plain.corrected["sfr"] == pytest.approx(plain.values["sfr"])
    assert masked.null["sfr"].value > 0.15
    assert masked.corrected["sfr"] == pytest.approx(0, abs=0.15)
    assert masked.corrected["sfr-alive"] == pytest.approx(0, abs=0.15)
    assert (
        masked.null["matched-cosine"].value > null_scores(60, 60, 64, signed=False).levels["matched-cosine"].value + 0.1
    )


def test_the_jackknife_covers_what_it_says() -> None:
    """Pair scores with a seed effect: the jackknife error is near the spread of the mean, the naive one is not."""
    rng = np.random.default_rng(0)
    means, errors, naive = [], [], []
    for _ in range(400):
        effect = rng.standard_normal(6)
        scores = {(i, j): float(effect[i] + effect[j]) for i, j in combinations(range(6), 2)}
        value, error = mean_over_pairs(scores, 6)
        assert error is not None
        means.append(value)
        errors.append(error)
        naive.append(np.std(list(scores.values()), ddof=1) / np.sqrt(len(scores)))
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.15)
    assert np.mean(naive) < 0.7 * np.std(means)
