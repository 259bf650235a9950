"""Which latents come back."""

from __future__ import annotations

import numpy as np
import pytest

from saebench.matching.agreement.cosines import Latents
from saebench.matching.agreement.pair import over_pairs
from saebench.matching.agreement.reappearance import Reappearance, binned, counts_by_share, reappearances


def planted() -> list[Latents]:
    """Feature 0 in all three seeds, 1 in the first two, the others in one; latent 3 of each is dead (and alike)."""
    eye = np.eye(12)
    features = [[0, 1, 2, 11], [1, 0, 3, 11], [4, 5, 0, 11]]
    dead = np.array([False, False, False, True])
    return [Latents(eye[rows], dead=dead) for rows in features]


def test_by_hand() -> None:
    items = planted()
    found = reappearances(over_pairs(items, null=False), items)
    assert [member.share.tolist() for member in found] == [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0]]
    assert [member.matched_cosine.tolist() for member in found] == [[1, 0.5, 0, 0], [0.5, 1, 0, 0], [0, 0, 1, 0]]
    # four latents come back nowhere, two in one other seed, three in both
    assert counts_by_share(found) == [4, 2, 3]
    assert all(member.dead_hits.sum() == 2 for member in found)


def test_bins_by_hand() -> None:
    items = planted()
    found = reappearances(over_pairs(items, null=False), items)
    density = [np.array([0.5, 0.02, 1e-9, 0]), np.array([0.02, 0.5, 0.02, 0]), np.array([0, 0.02, 1.0, 0])]
    bins = binned(found, density, (-3.0, -2.0, -1.0, 0.0))
    assert bins["edges"] == [-3, -2, -1, 0]
    # under the first edge: the first bin; the top edge: the last bin; an alive latent of density 0 by itself
    assert bins["n"] == [1, 4, 3]
    assert bins["mean"] == pytest.approx([0, (0.5 + 0.5 + 0 + 0) / 4, 1])
    assert bins["not_positive"] == {"n": 1, "mean": 0}
    assert bins["dead"] == {"n": 3, "mean": 1}
    # the first bin is empty without member 0; the last is 1 whoever is left out
    assert bins["stderr"][0] is None
    assert bins["stderr"][2] == 0
    # without 0: of (0.02 in 1 twice, 0.02 in 2) none comes back in the one other; without 1: (0, 0.02) and (2, 0.02):
    # 0; without 2: (0, 0.02), (1, 0.02) come back, (1, third) not: 2/3
    left = np.array([0, 0, 2 / 3])
    assert bins["stderr"][1] == pytest.approx(np.sqrt(2 / 3 * np.sum((left - left.mean()) ** 2)))


def test_two_seeds_have_no_error_and_empty_bins_no_mean() -> None:
    items = planted()[:2]
    found = reappearances(over_pairs(items, null=False), items)
    bins = binned(found, [np.full(4, 0.5)] * 2, (-2.0, -1.0, 0.0))
    assert (bins["n"], bins["mean"], bins["stderr"]) == ([0, 6], [None, pytest.approx(2 / 3)], [None, None])


def test_nobody_dead() -> None:
    items = [Latents(np.eye(4)), Latents(np.eye(4))]
    found = reappearances(over_pairs(items, null=False), items)
    assert isinstance(found[0], Reappearance)
    assert binned(found, [np.full(4, 0.5)] * 2, (-1.0, 0.0))["dead"] == {"n": 0, "mean": None}
    assert counts_by_share(found) == [0, 8]
