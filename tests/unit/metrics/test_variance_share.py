from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from saebench.api import SparseCodes
from saebench.metrics.reconstruction import VarianceExplainedAccumulator
from saebench.metrics.variance_share import VarianceShareAccumulator

D, N = 7, 12


class Sae:
    """x_hat = b + sum_j f_j d_j."""

    def __init__(self, seed=0, dtype=torch.float64):
        rng = torch.Generator().manual_seed(seed)
        self.rows = torch.randn(N, D, generator=rng, dtype=torch.float64).to(dtype)
        self.b = torch.randn(D, generator=rng, dtype=torch.float64).to(dtype)

    def decode(self, codes):
        return codes.to_dense() @ self.rows + self.b


def tokens(sae, n=200, l0=0.3, seed=1, signed=False):
    rng = torch.Generator().manual_seed(seed)
    dense = torch.rand(n, N, generator=rng, dtype=torch.float64).to(sae.rows.dtype)
    dense = dense * (torch.rand(n, N, generator=rng) < l0)
    dense[:, 3] = 0  # never fires
    if signed:
        dense = dense * torch.where(torch.rand(n, N, generator=rng) < 0.5, -1.0, 1.0).to(dense.dtype)
    codes = SparseCodes.from_dense(dense)
    x = sae.decode(codes) + 0.3 * torch.randn(n, D, generator=rng, dtype=torch.float64).to(sae.rows.dtype)
    return x, codes


def shares(sae, x, codes, size=64, directions=None):
    found = VarianceShareAccumulator(sae, sae.rows.double().numpy() if directions is None else directions)
    dense = codes.to_dense()
    for start in range(0, len(x), size):
        piece = SparseCodes.from_dense(dense[start : start + size])
        found.add(x[start : start + size], sae.decode(piece), piece)
    return found.shares()


def explained(x, x_hat):
    sums = VarianceExplainedAccumulator(D)
    sums.update(x, x_hat)
    return sums.compute().value


def silenced(sae, x, codes):
    """The slow, obvious way: silence each latent, decode again, measure."""
    whole = explained(x, sae.decode(codes))
    found = []
    for latent in range(N):
        dense = codes.to_dense()
        dense[:, latent] = 0
        found.append((whole - explained(x, sae.decode(SparseCodes.from_dense(dense)))) / whole)
    return np.array(found)


@pytest.mark.parametrize("l0", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("signed", [False, True])
def test_equals_silencing_each_latent_and_decoding_again(l0, signed):
    sae = Sae()
    x, codes = tokens(sae, l0=l0, signed=signed)
    found = shares(sae, x, codes)
    np.testing.assert_allclose(found, silenced(sae, x, codes), atol=1e-12)
    assert found[3] == 0
    assert found.dtype == np.float64


def test_a_hand_computed_case():
    """Two orthogonal latents that give back x exactly; one carries 4 of 5 parts of the variance, and the mean is 0."""
    sae = Sae()
    sae.rows, sae.b = torch.eye(N, D, dtype=torch.float64), torch.zeros(D, dtype=torch.float64)
    dense = torch.zeros(4, N, dtype=torch.float64)
    dense[:, 0], dense[:, 1] = torch.tensor([2.0, -2.0, 2.0, -2.0]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    codes = SparseCodes.from_dense(dense)
    found = shares(sae, sae.decode(codes), codes)
    np.testing.assert_allclose(found[:3], [0.8, 0.2, 0.0], atol=1e-15)


def test_a_latent_that_does_harm_has_a_negative_share():
    sae = Sae()
    x, codes = tokens(sae)
    x = x - 2 * codes.to_dense()[:, [5]] * sae.rows[5]
    found = shares(sae, x, codes)
    assert found[5] < 0
    np.testing.assert_allclose(found, silenced(sae, x, codes), atol=1e-12)


def test_invariances():
    sae = Sae()
    x, codes = tokens(sae)
    plain = shares(sae, x, codes)
    # another batch size, another order of tokens, another unit, a shift of data and bias, stored zeros
    np.testing.assert_allclose(shares(sae, x, codes, size=7), plain, atol=1e-12)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    np.testing.assert_allclose(
        shares(sae, x[order], SparseCodes.from_dense(codes.to_dense()[order])), plain, atol=1e-12
    )
    moved = Sae()
    moved.b = sae.b + 1e4
    np.testing.assert_allclose(shares(moved, x + 1e4, codes), plain, atol=1e-6)
    scaled = Sae()
    scaled.rows, scaled.b = sae.rows * 5, sae.b * 5
    np.testing.assert_allclose(shares(scaled, x * 5, codes), plain, atol=1e-12)
    # a latent scaled against its row
    turned = Sae()
    factor = torch.ones(N, dtype=torch.float64)
    factor[2] = 10.0
    turned.rows = sae.rows * factor[:, None]
    np.testing.assert_allclose(shares(turned, x, SparseCodes.from_dense(codes.to_dense() / factor)), plain, atol=1e-12)
    kept = VarianceShareAccumulator(sae, sae.rows.numpy())
    full = SparseCodes.from_topk(codes.to_dense(), torch.arange(N).expand(len(x), N), N)
    kept.add(x, sae.decode(full), full)
    np.testing.assert_allclose(kept.shares(), plain, atol=1e-12)


def test_float32_is_near_float64():
    exact, single = Sae(), Sae(dtype=torch.float32)
    x, codes = tokens(exact, n=2000)
    found = shares(single, x.float(), replace(codes, values=codes.values.float()), size=512)
    np.testing.assert_allclose(found, shares(exact, x, codes), rtol=1e-4, atol=1e-7)


def test_none_where_rows_do_not_add_up_to_the_reconstruction():
    class Squared(Sae):
        def decode(self, codes):
            return codes.to_dense().square() @ self.rows + self.b

    sae = Squared()
    x, codes = tokens(sae)
    assert shares(sae, x, codes) is None
    plain = Sae()
    x, codes = tokens(plain)
    assert shares(plain, x, codes, directions=1.01 * plain.rows.numpy()) is None
    assert shares(plain, x, codes, directions=(1 + 1e-5) * plain.rows.numpy()) is not None


def test_none_where_nothing_fires_or_nothing_is_explained():
    sae = Sae()
    x, codes = tokens(sae)
    nothing = SparseCodes.from_dense(torch.zeros(len(x), N, dtype=torch.float64))
    assert shares(sae, x, nothing) is None
    assert shares(sae, x + 100, codes) is None  # worse than the mean
    assert VarianceShareAccumulator(sae, sae.rows.numpy()).shares() is None


def test_linearity_is_asked_at_the_first_batch_that_fires():
    class Squared(Sae):
        def decode(self, codes):
            return codes.to_dense().square() @ self.rows + self.b

    sae = Squared()
    x, codes = tokens(sae)
    empty = SparseCodes.from_dense(torch.zeros(5, N, dtype=torch.float64))
    found = VarianceShareAccumulator(sae, sae.rows.numpy())
    found.add(x[:5], sae.decode(empty), empty)
    found.add(x, sae.decode(codes), codes)
    assert found.shares() is None
