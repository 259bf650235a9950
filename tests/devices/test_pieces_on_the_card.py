"""What goes another way on a card than on the processor comes to the same."""

from __future__ import annotations

import pytest
import torch
from simulated_device import Card, simulated_cuda
from torch import Tensor

from saebench.api import PluginError, SparseCodes
from saebench.host.sae_contract import normalise_codes
from saebench.lm.sampling import _running_sum
from saebench.metrics.clusters import origin_of
from saebench.nn.kernels.products import by_latent


@pytest.fixture
def card():
    with simulated_cuda() as card:
        yield card


def dense(rows: int = 40, d_sae: int = 24) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(rows, d_sae, generator=draws) * (torch.rand(rows, d_sae, generator=draws) < 0.2)
    z[5] = z[rows - 1] = 0.0
    return z


def test_codes_count_and_sort_their_entries_alike(card: Card) -> None:
    here = SparseCodes.from_dense(dense())
    here = SparseCodes(here.values.clone(), here.latents, here.offsets, here.d_sae)
    here.values[::3] = 0.0  # entries may be zero
    there = here.to("cuda")
    with card.hot("counting"):
        counted = there.rows(), there.l0(), there.firings(), SparseCodes.offsets_from_rows(there.rows(), there.n_rows)
        order, offsets = by_latent(there.latents, there.d_sae)
    expected = here.rows(), here.l0(), here.firings(), here.offsets
    assert all(torch.equal(mine.cpu(), its) for mine, its in zip(counted, expected, strict=True))
    assert torch.equal(here.firings(), (here.to_dense() != 0).sum(0))
    for mine, its in zip((order, offsets), by_latent(here.latents, here.d_sae), strict=True):
        assert torch.equal(mine.cpu(), its)
    chosen = torch.tensor([3, 3, 0, 39])
    assert torch.equal(there.select(chosen.cuda()).to_dense().cpu(), here.select(chosen).to_dense())
    empty = SparseCodes.from_dense(torch.zeros(3, 4)).to("cuda")
    assert empty.firings().tolist() == [0] * 4 and empty.l0().tolist() == [0] * 3
    assert by_latent(empty.latents, 4)[1].tolist() == [0] * 5


def test_codes_that_lie_in_two_places_are_refused_with_where(card: Card) -> None:
    codes = SparseCodes.from_dense(dense())
    parted = SparseCodes(codes.values.cuda(), codes.latents, codes.offsets.cuda(), codes.d_sae)
    with pytest.raises(PluginError, match="lie on cpu and cuda:0: move what the module makes to x's device"):
        normalise_codes(parted, codes.d_sae)


@pytest.mark.parametrize("rows", [1, 2, 7, 400])
def test_the_origin_is_the_median(rows: int, card: Card) -> None:
    x = torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)
    assert torch.equal(origin_of(x.cuda()).cpu(), origin_of(x))


def test_running_sums_rise_and_are_as_close_as_their_unit(card: Card) -> None:
    probabilities = torch.rand(4, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 8
    probabilities[:, ::3] = 0.0
    probabilities /= probabilities.sum(1, keepdim=True)
    torch.use_deterministic_algorithms(True)
    try:
        there = _running_sum(probabilities.cuda()).cpu()
    finally:
        torch.use_deterministic_algorithms(False)
    assert (there.diff() >= 0).all()
    assert torch.equal(there[:, ::3][:, 1:], there[:, 2::3][:, : there[:, ::3].shape[1] - 1])  # a zero adds nothing
    torch.testing.assert_close(there, _running_sum(probabilities), rtol=0, atol=5000 * 2.0**-53)
