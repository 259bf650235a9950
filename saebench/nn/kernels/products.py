"""The plain torch operators that everything sparse is made of.

No gradients here: `autograd` gives them that, `by_hand` uses them as they are.

Legend: B tokens, n = d_sae latents, d coordinates, nnz active entries in row order (see `SparseCodes`).

    bag_sum              out[b] = sum over the entries of bag b of weights[i] * matrix[ids[i]]
    entry_dots           out[i] = <left[row i], right[latent i]>
    transposed_product   out[j] = sum over the entries of latent j of weights[i] * matrix[row i]

Each output row is summed by one thread in one order, so results are the same bit for bit. A kernel written for a GPU
takes the place of one of these three, of `select.linear_select`, or of `Optimiser.step`; they are its reference.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torch.nn import functional

with warnings.catch_warnings():
    # torch says once a process that CSR tensors are in beta; said here, it is not said in a user's run.
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.zeros(2, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0), (1, 1))

KEPT_BYTES = 1 << 24
"""A result of more bytes is written into memory that is kept: the allocator hands larger pieces back each time, and
touching them anew costs more than the sums."""


def bag_sum(matrix: Tensor, ids: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """`out[b] = sum over i in [offsets[b], offsets[b + 1]) of weights[i] * matrix[ids[i]]`. No gradient of its own.

    Args:
        matrix: `[m, d]`.
        ids: `[nnz]` int64 in `[0, m)`.
        offsets: `[B + 1]` int64.
        weights: `[nnz]`, of matrix's dtype.

    Returns:
        `[B, d]`.
    """
    if ids.numel() == 0:
        return matrix.new_zeros(offsets.numel() - 1, matrix.shape[1])
    return functional.embedding_bag(
        ids, matrix, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True
    )


def entry_dots(left: Tensor, right: Tensor, latents: Tensor, offsets: Tensor) -> Tensor:
    """`[nnz]`: `<left[rows[i]], right[latents[i]]>`, without gathering rows: 3 to 20 times faster."""
    empty = torch.sparse_csr_tensor(
        offsets, latents, left.new_zeros(latents.numel()), (left.shape[0], right.shape[0]), check_invariants=False
    )
    product: Tensor = torch.sparse.sampled_addmm(empty, left, right.T, beta=0.0)
    return product.values()


def by_latent(latents: Tensor, d_sae: int) -> tuple[Tensor, Tensor]:
    """`order [nnz]` that sorts entries by latent (stable, so by token inside a latent) and `offsets [d_sae + 1]`."""
    # Radix sort exists for 16-bit keys: several times faster than a sort of int64.
    keys = latents.to(torch.int16) if d_sae <= 32767 else latents.to(torch.int32)
    ordered, order = torch.sort(keys, stable=True)
    if keys.is_cuda:  # counting there waits for the device
        return order, torch.searchsorted(ordered, torch.arange(d_sae + 1, dtype=keys.dtype, device=keys.device))
    offsets = torch.zeros(d_sae + 1, dtype=torch.long, device=latents.device)
    offsets[1:] = torch.cumsum(torch.bincount(latents, minlength=d_sae), 0)
    return order, offsets


def transposed_product(
    weights: Tensor, rows: Tensor, offsets: Tensor, matrix: Tensor, out: Tensor | None = None
) -> Tensor:
    """`[n, d]`: for each latent the sum of `weights[i] * matrix[rows[i]]` over its entries.

    The entries are in order of latents (`by_latent`).

    Args:
        weights, rows: `[nnz]`. offsets: `[n + 1]`. matrix: `[B, d]`.
        out: Memory for a large result; without it, or where the result is small, fresh memory is returned.
    """
    n = offsets.numel() - 1
    small = n * matrix.shape[1] * matrix.element_size() <= KEPT_BYTES
    if out is None or small or matrix.device.type != "cpu" or weights.numel() == 0:
        return bag_sum(matrix, rows, offsets, weights)
    sparse = torch.sparse_csr_tensor(offsets, rows, weights, (n, matrix.shape[0]), check_invariants=False)
    return torch.addmm(out, sparse, matrix, beta=0.0, out=out)
