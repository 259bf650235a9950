"""Density metrics and the histogram."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saebench.api import SparseCodes
from saebench.metrics.density import DensityAccumulator


def firing(n: int, rates: torch.Tensor, seed: int = 0) -> SparseCodes:
    rng = torch.Generator().manual_seed(seed)
    return SparseCodes.from_dense((torch.rand(n, len(rates), generator=rng) < rates).float())


def test_batching_and_order_do_not_matter() -> None:
    z = firing(500, torch.linspace(0, 0.5, 40)).to_dense()
    ids = torch.arange(500) // 10
    one, many = DensityAccumulator(40), DensityAccumulator(40)
    one.add(SparseCodes.from_dense(z), ids)
    for piece in torch.randperm(500, generator=torch.Generator().manual_seed(2)).split(23):
        many.add(SparseCodes.from_dense(z[piece]), ids[piece])
    assert one.values() == many.values()
    assert one.histogram() == many.histogram()
    assert np.array_equal(one.density(), (z != 0).double().mean(0).numpy())


def test_histogram_is_complete() -> None:
    sums = DensityAccumulator(300)
    sums.add(firing(2000, torch.logspace(-6, 0, 300)))
    histogram = sums.histogram()
    assert sum(histogram["counts"]) + histogram["zero"] == 300
    edges = np.array(histogram["edges_log10"])
    assert (edges[0], edges[-1], len(edges)) == (-8.0, 0.0, 81)
    low = 10 ** edges[:-1] * (1 - 1e-9)
    density = sums.density()
    slow = [int(((density >= a) & (density < b)).sum()) for a, b in zip(low, [*low[1:], 2.0], strict=True)]
    assert histogram["counts"] == slow


def test_stored_zeros_do_not_fire_and_negative_values_do() -> None:
    codes = SparseCodes(torch.tensor([0.0, -1.0]), torch.tensor([0, 1]), torch.tensor([0, 1, 2]), 2)
    sums = DensityAccumulator(2)
    sums.add(codes)
    assert sums.density().tolist() == [0.0, 0.5]


def test_ultralow_needs_and_uses_a_million_tokens() -> None:
    sums = DensityAccumulator(3)
    latents = torch.zeros(1_000_000, dtype=torch.int64)
    latents[:9] = 1  # density 9e-6
    sums.add(SparseCodes.from_topk(torch.ones(1_000_000, 1), latents[:, None], 3))
    assert sums.values()["ultralow-fraction"].value == pytest.approx(1 / 3)


def test_errors_of_fractions_are_their_spread_over_samples() -> None:
    """Documents have moods: a latent fires more in some. Errors in rms within a quarter of the spread, dense and dead.

    The delete-a-block jackknife gave 2 to 2.5 times the spread."""
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-4.5, -0.4, 300)
    ids = ("dead-fraction", "dense-fraction-1pct", "dense-fraction-10pct", "dense-mass-10pct")
    values: dict[str, list[float]] = {id: [] for id in ids}
    errors: dict[str, list[float]] = {id: [] for id in ids}
    for _ in range(60):
        mood = rates * rng.gamma(0.5, 2.0, (60, 300))
        firing = rng.random((60, 40, 300)) < mood[:, None]
        sums = DensityAccumulator(300)
        sums.add(SparseCodes.from_dense(torch.from_numpy(firing.reshape(-1, 300)).float()), torch.arange(2400) // 40)
        found = sums.values()
        for id in ids:
            values[id].append(found[id].value or 0.0)
            errors[id].append(found[id].stderr or 0.0)
    for id in ids:
        assert np.sqrt(np.mean(np.square(errors[id]))) == pytest.approx(np.std(values[id]), rel=0.25), id


def test_degenerate() -> None:
    assert all(value.reason == "no tokens were seen" for value in DensityAccumulator(3).values().values())
    silent = DensityAccumulator(3)
    silent.add(SparseCodes.from_dense(torch.zeros(6, 3)))
    values = silent.values()
    assert values["dead-fraction"].value == 1
    assert values["dense-mass-10pct"].reason == "no latent ever fires"
    with pytest.raises(ValueError, match="codes have 4 latents, expected 3"):
        silent.add(SparseCodes.from_dense(torch.zeros(6, 4)))
