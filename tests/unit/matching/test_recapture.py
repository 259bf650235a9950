"""Distinct latents and the extrapolated total."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from saebench.matching import Matching, match
from saebench.matching.agreement.recapture import chao2, chapman, clusters, rarefaction, recapture, unstable


def alive(*sizes: int) -> list[np.ndarray]:
    return [np.ones(size, dtype=bool) for size in sizes]


def every_pair(items: list[np.ndarray]) -> dict[tuple[int, int], Matching]:
    return {(i, j): match(items[i], items[j]) for i, j in combinations(range(len(items)), 2)}


def sampled(total: int, seeds: int, chance: float, rng: np.random.Generator) -> tuple[list[np.ndarray], np.ndarray]:
    """Each seed holds each of `total` orthogonal features with a probability; and which it holds."""
    holds = rng.random((seeds, total)) < chance
    eye = np.eye(total)
    return [eye[which] for which in holds], holds


def test_clusters_by_hand() -> None:
    eye = np.eye(6)
    items = [eye[[0, 1, 2]], eye[[1, 2, 3]], eye[[2, 3, 4]]]
    # feature 0 and 4 in one seed, 1 and 3 in two, 2 in three
    assert sorted(clusters(every_pair(items), alive(3, 3, 3)).tolist()) == [1, 1, 2, 2, 3]
    found = recapture(every_pair(items), alive(3, 3, 3))
    assert (found.distinct, found.frequencies, found.n_alive) == (5, (2, 2, 1), (3, 3, 3))
    # one seed finds 3; two find 4, 4 or 5... (0 1 2 3), (0 1 2 3 4), (1 2 3 4); three find 5
    assert found.rarefaction == pytest.approx((3, 13 / 3, 5))
    assert found.estimate == pytest.approx(5 + 2 / 3 * 2 * 1 / (2 * 3))
    assert found.method == "chao2"


def test_clusters_count_what_planted_dictionaries_share() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        items, holds = sampled(40, seeds, 0.5, rng)
        found = recapture(every_pair(items), alive(*map(len, items)))
        counts = holds.sum(0)
        assert found.frequencies == tuple(np.bincount(counts, minlength=seeds + 1)[1:])
        assert found.distinct == (counts > 0).sum()


def test_a_chain_is_cut_where_a_seed_would_stand_twice() -> None:
    """Rows turned by 40 degrees each: neighbours match (cos 0.77), but the third is not the first (cos 0.17)."""
    turn = [np.deg2rad(40 * step) for step in range(4)]
    a, b, c, d = (np.array([np.cos(t), np.sin(t)]) for t in turn)
    items = [np.stack([a, d]), np.stack([b]), np.stack([c])]
    # a-b, b-c, c-d are all over the threshold: as one component a seed would hold one latent twice
    found = clusters(every_pair(items), alive(2, 1, 1))
    assert found.sum() == 4
    assert len(found) == 2
    assert found.max() <= 3


def test_dead_latents_are_not_counted() -> None:
    eye = np.eye(4)
    sides = [np.array([True, True, False, False]), np.array([True, False, True, False])]
    rows = [np.flatnonzero(side) for side in sides]
    matching = match(eye[rows[0]], eye[rows[1]])
    from dataclasses import replace

    matching = replace(matching, rows=rows[0][matching.rows], columns=rows[1][matching.columns])
    found = recapture({(0, 1): matching}, sides)
    assert (found.distinct, found.frequencies, found.n_alive) == (3, (2, 1), (2, 2))


def test_rarefaction_against_every_subset() -> None:
    rng = np.random.default_rng(1)
    holds = rng.random((6, 30)) < 0.3
    frequencies = np.bincount(holds.sum(0), minlength=7)[1:]
    slow = [np.mean([holds[list(some)].any(0).sum() for some in combinations(range(6), k)]) for k in range(1, 7)]
    assert rarefaction([int(count) for count in frequencies]) == pytest.approx(slow)


def test_chapman_by_hand() -> None:
    # 30 and 40 found, 20 of them twice: 31 * 41 / 21 - 1
    total, variance = chapman(30, 40, 20)
    assert total == pytest.approx(31 * 41 / 21 - 1)
    assert variance == pytest.approx(31 * 41 * 10 * 20 / (21**2 * 22))
    assert chapman(30, 30, 30) == (30, 0)


def test_chao2_by_hand() -> None:
    total, variance = chao2(100, 20, 9, 4)
    # 100 + 3/4 * 20 * 19 / 20
    assert total == pytest.approx(100 + 14.25)
    assert variance == pytest.approx(14.25 + (9 / 16) * 20 * 39**2 / 400 + (9 / 16) * 400 * 9 * 361 / (4 * 10**4))
    assert chao2(50, 0, 3, 3) == (50, 0)


@pytest.mark.parametrize(("seeds", "chance"), [(2, 0.6), (3, 0.5), (6, 0.3)])
def test_the_total_is_found_and_its_interval_covers_where_the_assumptions_hold(seeds: int, chance: float) -> None:
    rng = np.random.default_rng(2)
    estimates, covered = [], 0
    for _ in range(300):
        counts = (rng.random((seeds, 200)) < chance).sum(0)
        holds = np.bincount(counts, minlength=seeds + 1)[1:]
        # the pairs are known here: feed the counts through a matching of identities
        found = from_counts(counts, seeds, rng)
        assert found.frequencies == tuple(holds)
        assert found.low <= found.estimate <= found.high
        assert found.low >= found.distinct
        estimates.append(found.estimate)
        covered += found.low <= 200 <= found.high
    assert np.mean(estimates) == pytest.approx(200, rel=0.03)
    assert covered / 300 >= 0.9


def test_latents_that_are_hard_to_find_make_it_too_small() -> None:
    rng = np.random.default_rng(3)
    chances = np.where(np.arange(400) < 200, 0.6, 0.05)
    estimates = [from_counts((rng.random((3, 400)) < chances).sum(0), 3, rng).estimate for _ in range(100)]
    assert np.mean(estimates) < 400
    assert np.mean(estimates) > np.mean([(rng.random((3, 400)) < chances).any(0).sum() for _ in range(100)])


def from_counts(counts: np.ndarray, seeds: int, rng: np.random.Generator):  # type: ignore[no-untyped-def]
    """Recapture of features of which `counts` says in how many seeds each stands (which ones: at random)."""
    holds = np.zeros((seeds, len(counts)), dtype=bool)
    for feature, count in enumerate(counts):
        holds[rng.permutation(seeds)[:count], feature] = True
    position = np.cumsum(holds, 1) - 1
    matchings = {}
    for i, j in combinations(range(seeds), 2):
        both = holds[i] & holds[j]
        rows, columns = position[i][both], position[j][both]
        ones, n, m = np.ones(len(rows)), holds[i].sum(), holds[j].sum()
        matchings[i, j] = Matching(rows, columns, ones, float(len(rows)), 0.0, True, np.zeros(n), np.zeros(m))
    return recapture(matchings, [np.ones(int(side.sum()), dtype=bool) for side in holds])


def test_identical_seeds_leave_nothing_to_find() -> None:
    eye = np.eye(50)
    for seeds in (2, 4):
        found = recapture(every_pair([eye] * seeds), alive(*[50] * seeds))
        assert (found.distinct, found.estimate, found.stderr, found.low) == (50, 50, 0, 50)
        assert found.rarefaction == pytest.approx([50] * seeds)
        assert 50 <= found.high < 70


def test_details_are_finite_json() -> None:
    found = recapture(every_pair([np.eye(5)[:3], np.eye(5)[2:]]), alive(3, 3)).to_json()
    assert (found["method"], found["singletons"], found["doubletons"]) == ("chapman", 4, 1)
    assert found["k"] == [1, 2]
    assert found["distinct"] == [3, 5]
    assert "no bound" in found["assumptions"]
    # one latent in common is too little to go by
    assert [found[key] for key in ("estimate", "stderr", "low", "high")] == [None] * 4
    assert found["reason"] == "1 latents are found again at a cosine over 0.8, and a total needs 7"
    assert all(math.isfinite(total) for total in found["by_threshold"].values())


def test_a_total_that_goes_by_the_threshold_is_not_given() -> None:
    """Every seed finds all 256 features, at cosines of 0.78 to 0.92: pairs of seeds agree at 0.61 to 0.85."""
    rng, n, d = np.random.default_rng(4), 256, 2048
    close = np.linspace(0.78, 0.92, n)[:, None]
    noise = [np.linalg.qr(rng.standard_normal((d - n, n)))[0].T for _ in range(3)]
    items = [np.hstack([close * np.eye(n), np.sqrt(1 - close**2) * rows]) for rows in noise]
    found = recapture(every_pair(items), alive(n, n, n))
    assert found.by_threshold[0.6] == 256
    assert found.estimate > 2 * n
    assert "it goes by the threshold: 256 to " in str(found.unstable)
    assert found.to_json()["estimate"] is None


def test_seeds_that_share_nothing_give_no_total_though_every_threshold_agrees() -> None:
    found = recapture(every_pair(list(np.split(np.eye(60), 3))), alive(20, 20, 20))
    assert len(set(found.by_threshold.values())) == 1
    assert found.unstable == "0 latents are found again at a cosine over 0.8, and a total needs 7"


def test_a_total_that_thresholds_agree_on_is_given() -> None:
    found = recapture(every_pair([np.eye(30)[:20], np.eye(30)[8:28]]), alive(20, 20))
    assert found.unstable is None
    assert found.to_json()["estimate"] == found.estimate == set(found.by_threshold.values()).pop()
    # a tenth larger is the edge
    assert unstable({0.6: 100.0, 0.8: 110.0}, {0.6: 50, 0.8: 40}) is None
    assert "more than a factor of 1.1" in str(unstable({0.6: 100.0, 0.8: 110.1}, {0.6: 50, 0.8: 40}))
