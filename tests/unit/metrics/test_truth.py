"""F1 of firing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saebench.api import SparseCodes
from saebench.metrics.truth import FiringF1Accumulator, uniqueness


def test_equals_the_dense_reference_in_any_batching() -> None:
    rng = torch.Generator().manual_seed(0)
    true = torch.rand(300, 12, generator=rng) < 0.2
    ours = torch.rand(300, 20, generator=rng) < 0.3
    latents, features = np.arange(12), np.random.default_rng(0).permutation(12)
    ours[:, :12] = torch.where(torch.rand(300, 12, generator=rng) < 0.8, true[:, features], ours[:, :12])
    a, b = ours[:, :12].numpy(), true[:, features].numpy()
    expected = np.mean(2 * (a & b).sum(0) / (a.sum(0) + b.sum(0)))
    for batch in (1, 77, 300):
        sums = FiringF1Accumulator(latents, features, 20, 12)
        for piece in torch.randperm(300, generator=rng).split(batch):
            sums.update(SparseCodes.from_dense(ours[piece].float()), SparseCodes.from_dense(true[piece].float()))
        assert sums.compute().value == pytest.approx(expected, rel=1e-12)
        assert (sums.compute().stderr or 0) > 0


def test_perfect_firing_is_one_and_absent_features_do_not_count() -> None:
    z = SparseCodes.from_dense(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]))
    sums = FiringF1Accumulator(np.arange(3), np.arange(3), 3, 3)
    sums.update(z, z)
    assert (sums.compute().value, sums.compute().n) == (1.0, 2)


def test_degenerate() -> None:
    sums = FiringF1Accumulator(np.arange(2), np.arange(2), 2, 2)
    assert sums.compute().reason == "no tokens were seen"
    silent = SparseCodes.from_dense(torch.zeros(3, 2))
    sums.update(silent, silent)
    assert sums.compute().reason == "no matched feature is present in the data"
    with pytest.raises(ValueError, match="codes are of 3 tokens, truth is of 2"):
        sums.update(silent, SparseCodes.from_dense(torch.zeros(2, 2)))


def test_uniqueness_is_one_only_if_no_feature_is_shared() -> None:
    assert uniqueness(np.eye(4)) == 1
    assert uniqueness(np.ones((4, 4))) == 0.25
    assert uniqueness(-np.eye(8)[:, :4]) == 0.5
