"""Values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saebench.api import SparseCodes, SplicedLosses
from saebench.matching import match, match_saes
from saebench.metrics.density import DensityAccumulator
from saebench.metrics.losses import LossAccumulator
from saebench.metrics.reconstruction import ReconstructionAccumulator
from saebench.metrics.sparsity import SparsityAccumulator
from saebench.metrics.truth import FiringF1Accumulator, uniqueness
from saebench.score.canonical import in_16_bits


def test_reconstruction() -> None:
    # mean (1, 2), every token at squared distance 1 + 4 from it: 20 in all; squared errors 0, 1, 4, 0
    x = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]])
    x_hat = torch.tensor([[0.0, 0.0], [2.0, 1.0], [0.0, 2.0], [2.0, 4.0]])
    sums = ReconstructionAccumulator(2)
    sums.add(x, x_hat, torch.tensor([0, 0, 1, 1]))
    values = sums.values()
    expected = {
        "fvu": 5 / 20,
        "variance-explained": 15 / 20,
        "mse": 5 / 4,
        "fvu-median-token": 0.5 / 5,
        "cosine": (0 + 4 / (2 * math.sqrt(5)) + 1 + 1) / 4,
        "l2-ratio": (math.sqrt(5) / 2 + 0.5 + 1) / 3,
        "relative-bias": (5 + 4 + 20) / (4 + 8 + 20),
    }
    assert {id: value.value for id, value in values.items()} == pytest.approx(expected, rel=1e-15)
    # two clusters: errors 1 and 4, variances 10 and 10; residuals 1 - 2.5 and 4 - 2.5; sqrt(2 * (1.5^2 + 1.5^2)) / 20
    assert values["fvu"].stderr == pytest.approx(0.15, rel=1e-14)
    assert values["mse"].stderr == pytest.approx(math.sqrt(2 * (1.5**2 + 1.5**2)) / 4, rel=1e-14)
    assert all(value.n == 4 for value in values.values())


def test_losses() -> None:
    losses = SplicedLosses(
        ce_clean=torch.tensor([1.0, 1.0]),
        ce_spliced=torch.tensor([1.5, 2.5]),
        ce_zero=torch.tensor([5.0, 5.0]),
        ce_mean=torch.tensor([3.0, 3.0]),
        kl_spliced=torch.tensor([0.5, 1.5]),
        kl_zero=torch.tensor([4.0, 4.0]),
    )
    sums = LossAccumulator()
    sums.add(losses)
    values = {id: value.value for id, value in sums.values().items()}
    expected = {
        "ce-clean": 1.0, "ce-spliced": 2.0, "ce-zero": 5.0, "ce-mean": 3.0,
        "ce-recovered-zero": 3 / 4, "ce-recovered-mean": 1 / 2, "kl": 1.0, "kl-recovered": 3 / 4,
    }  # fmt: skip
    assert values == pytest.approx(expected, rel=1e-15)


def codes(rows: list[dict[int, float]], d_sae: int) -> SparseCodes:
    z = torch.zeros(len(rows), d_sae)
    for token, row in enumerate(rows):
        for latent, value in row.items():
            z[token, latent] = value
    return SparseCodes.from_dense(z)


def test_sparsity_counts_negative_values_and_not_stored_zeros() -> None:
    batch = SparseCodes(torch.tensor([1.0, -2.0, 0.0, 3.0]), torch.tensor([0, 1, 2, 1]), torch.tensor([0, 3, 4, 4]), 3)
    sums = SparsityAccumulator(torch.tensor([1.0, 2.0, 5.0]))
    sums.add(batch)
    values = {id: value.value for id, value in sums.values().items()}
    # active latents 2, 1, 0; norm-folded sums 1 + 4, 6, 0; the quantiles of 0, 1, 2 by linear interpolation
    # latent 0 fires on one token of three, latent 1 on two: both entropies are those of a third
    third = math.log2(3) - 2 / 3
    expected = {"l0": 1.0, "l0-p5": 0.1, "l0-p95": 1.9, "l1": 11 / 3}
    expected |= {"values-per-token": 1.0, "bits-per-token": 2 * third + 16}
    assert values == pytest.approx(expected, rel=1e-15)


def test_side_values_are_priced() -> None:
    side = {"mean": torch.zeros(2), "scale": torch.ones(2, 2)}
    batch = SparseCodes(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), torch.tensor([0, 1, 2]), 3, side)
    sums = SparsityAccumulator()
    sums.add(batch)
    values = {id: value.value for id, value in sums.values().items()}
    # one latent, always on, and three side values: four values of 16 bits, and a pattern that needs none
    assert (values["l0"], values["values-per-token"], values["bits-per-token"]) == (1.0, 4.0, 64.0)


def test_fvu_of_rounded_codes() -> None:
    x = torch.tensor([[0.0], [2.0]])
    sums = ReconstructionAccumulator(1)
    sums.add(x, x, x_hat_16bit=torch.tensor([[0.5], [2.0]]))
    assert sums.values()["fvu"].value == 0
    assert sums.values()["fvu-16bit"].value == 0.25 / 2
    # bfloat16 keeps 8 bits: between 1 and 2 steps are 1/128
    codes = SparseCodes(torch.tensor([1 + 1 / 128, 1 + 1 / 1024]), torch.tensor([0, 1]), torch.tensor([0, 2]), 3)
    assert in_16_bits(codes).values.tolist() == [1 + 1 / 128, 1.0]


def test_density() -> None:
    # 100 tokens; latent 0 fires on all, 1 on 10 (exactly 10 %), 2 on 2, 3 never
    rows = [{0: 1.0} | ({1: -1.0} if t < 10 else {}) | ({2: 1.0} if t < 2 else {}) for t in range(100)]
    sums = DensityAccumulator(4)
    sums.add(codes(rows, 4))
    values = sums.values()
    assert values["dead-fraction"].value == 1 / 4
    assert values["dense-fraction-1pct"].value == 3 / 4
    assert values["dense-fraction-10pct"].value == 1 / 4  # strictly over
    assert values["dense-mass-10pct"].value == pytest.approx(1.0 / 1.12, rel=1e-15)
    assert values["ultralow-fraction"].value is None
    assert "1,000,000" in (values["ultralow-fraction"].reason or "")
    histogram = sums.histogram()
    filled = {round(histogram["edges_log10"][i], 3): n for i, n in enumerate(histogram["counts"]) if n}
    assert filled == {-0.1: 1, -1.0: 1, -1.7: 1}  # density 1 in the last bin, 0.1 on its edge, 0.02
    assert (histogram["zero"], histogram["n_tokens"], len(histogram["edges_log10"])) == (1, 100, 81)


def test_truth() -> None:
    cosines = np.array([[0.9, 0.1], [0.8, -0.7], [0.1, -0.95]])
    assert uniqueness(cosines) == 2 / 3
    firing = FiringF1Accumulator(np.array([0, 2]), np.array([0, 1]), 3, 2)
    ours = codes([{0: 1.0}, {0: 1.0, 1: 1.0}, {2: 1.0}, {}], 3)
    true = codes([{0: 2.0}, {1: 1.0}, {0: 1.0, 1: 1.0}, {0: 1.0}], 2)
    firing.update(ours, true)
    # feature 0: both 1, fires 2, present 3: 2 / 5; feature 1: both 1, fires 1, present 2: 2 / 3
    assert firing.compute().value == pytest.approx((2 / 5 + 2 / 3) / 2, rel=1e-15)


def test_matching_is_optimal_not_greedy() -> None:
    # cosines [[1, 0.8], [0.8, 0.28]]: the greedy pairs give 1.28, the crossed ones 1.6
    A = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    B = torch.tensor([[2.0, 0.0], [2.4, -1.8]])
    found = match(A, B)
    assert found.columns.tolist() == [1, 0]
    assert found.cosines.tolist() == pytest.approx([0.8, 0.8])
    assert found.total == pytest.approx(1.6)
    assert 0 < found.relative_gap < 1e-12  # what rounding leaves open
    assert found.proven is True


def test_match_both_sides() -> None:
    class Sae:
        def __init__(self, W_enc: list[list[float]], W_dec: list[list[float]]) -> None:
            self.W_enc, self.W_dec = torch.tensor(W_enc), torch.tensor(W_dec)

    a = Sae([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    b = Sae([[0.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.6, 0.8]])
    assert match_saes(a, b).columns.tolist() == [0, 1]
    assert match_saes(a, b, which="encoder").columns.tolist() == [1, 0]
    both = match_saes(a, b, which="both")
    assert both.columns.tolist() == [1, 0]  # means: straight 0.5 + 0.4, crossed 0.8 + 0.5
    assert both.cosines.tolist() == pytest.approx([0.8, 0.5])
