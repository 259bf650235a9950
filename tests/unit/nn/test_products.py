"""The plain operators against sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saebench.nn.kernels import products
from saebench.nn.kernels.products import bag_sum, by_latent, entry_dots, transposed_product

DTYPES = (torch.float32, torch.float64)


def rand(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def entries(rows: int, n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """rows, latents, offsets of a random sparse pattern with an empty first row and an empty last latent."""
    mask = torch.rand(rows, n, generator=torch.Generator().manual_seed(seed)) < 0.3
    mask[0], mask[:, -1] = False, False
    row, latent = mask.nonzero(as_tuple=True)
    return row, latent, torch.cat([torch.zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_by_its_dense_matrix(dtype: torch.dtype) -> None:
    row, latent, offsets = entries(9, 13)
    weights, left, right = (
        rand(len(row), dtype=dtype),
        rand(9, 6, seed=1, dtype=dtype),
        rand(13, 6, seed=2, dtype=dtype),
    )
    dense = torch.zeros(9, 13, dtype=dtype).index_put((row, latent), weights)
    torch.testing.assert_close(bag_sum(right, latent, offsets, weights), dense @ right)
    torch.testing.assert_close(entry_dots(left, right, latent, offsets), (left @ right.T)[row, latent])
    order, by_offsets = by_latent(latent, 13)
    made = transposed_product(weights[order], row[order], by_offsets, left)
    torch.testing.assert_close(made, dense.T @ left)
    assert not made[-1].any()


def test_by_latent_is_a_stable_sort_with_counts() -> None:
    latents = torch.tensor([2, 0, 2, 4, 0, 2])
    order, offsets = by_latent(latents, 6)
    assert order.tolist() == [1, 4, 0, 2, 5, 3]
    assert offsets.tolist() == [0, 2, 2, 5, 5, 6, 6]


@pytest.mark.parametrize("d_sae", [32_767, 32_768, 70_000])
def test_by_latent_at_the_edge_of_16_bits(d_sae: int) -> None:
    latents = torch.tensor([d_sae - 1, 0, 32_766, d_sae - 1, 1])
    order, offsets = by_latent(latents, d_sae)
    assert torch.equal(order, torch.sort(latents, stable=True).indices)
    assert offsets.numel() == d_sae + 1
    assert int(offsets[-1]) == 5
    assert offsets.diff().nonzero().squeeze(1).tolist() == sorted({d_sae - 1, 0, 32_766, 1})


def test_nothing_in_gives_zeros_out() -> None:
    none, empty = torch.zeros(0, dtype=torch.long), torch.zeros(0)
    offsets = torch.zeros(4, dtype=torch.long)
    assert bag_sum(torch.ones(2, 5), none, offsets, empty).tolist() == [[0.0] * 5] * 3
    assert entry_dots(torch.ones(3, 5), torch.ones(2, 5), none, offsets).numel() == 0
    order, by_offsets = by_latent(none, 4)
    assert order.numel() == 0
    assert by_offsets.tolist() == [0] * 5
    out = torch.full((3, 5), torch.nan)
    assert transposed_product(empty, none, offsets, torch.ones(2, 5), out).tolist() == [[0.0] * 5] * 3


@pytest.mark.real("has no addresses")
@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_for_a_large_result_is_overwritten_whatever_it_held(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    row, latent, _ = entries(9, 13)
    weights, matrix = rand(len(row), dtype=dtype), rand(9, 6, seed=1, dtype=dtype)
    order, offsets = by_latent(latent, 13)
    fresh = transposed_product(weights[order], row[order], offsets, matrix)
    out = torch.full((13, 6), torch.nan, dtype=dtype)
    small = transposed_product(weights[order], row[order], offsets, matrix, out)
    assert small.data_ptr() != out.data_ptr()
    assert torch.equal(small, fresh)
    monkeypatch.setattr(products, "KEPT_BYTES", 0)
    large = transposed_product(weights[order], row[order], offsets, matrix, out)
    assert large.data_ptr() == out.data_ptr()
    torch.testing.assert_close(large, fresh)
    assert not large[-1].any()


def test_the_same_bits_twice() -> None:
    row, latent, offsets = entries(200, 300)
    weights, left, right = (
        rand(len(row), dtype=torch.float32),
        rand(200, 33, seed=1, dtype=torch.float32),
        rand(300, 33, dtype=torch.float32),
    )
    order, by_offsets = by_latent(latent, 300)

    def once() -> list[Tensor]:
        return [
            bag_sum(right, latent, offsets, weights),
            entry_dots(left, right, latent, offsets),
            transposed_product(weights[order], row[order], by_offsets, left),
        ]

    for one, two in zip(once(), once(), strict=True):
        assert torch.equal(one, two)
