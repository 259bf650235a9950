"""The largest pre-activations of a whole batch (BatchTopK), most of which are never computed in float32.

Legend: B tokens, n latents, z the rough pre-activations, each off by E_b + rho |z| at most for token b (see `screen`;
all 0 and exact where the back end gives float32 products), v the float32 values, K = k * B.

    1. z = rough(x @ W.T + b)                             all of it: what is chosen depends on the whole batch
    2. bound = the K-th largest of max_group z (1 - rho) - E_b
                                                          K entries have v >= bound, so the K-th largest v has too
    3. candidates: z >= (bound - E_b) / (1 + rho)         every v >= bound is among them
    4. v of the candidates alone, and the K largest of those

A token whose E_b reaches the bound has no usable cut: its whole row is computed in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saebench.api.codes import SparseCodes
from saebench.nn.kernels import backends
from saebench.nn.kernels.above import Entries, block_above, joined
from saebench.nn.kernels.dense_topk import batch_topk, linear_columns
from saebench.nn.kernels.products import entry_dots
from saebench.nn.kernels.screen import RHO, SAFE, Rounded, at_least, bits_of, block_rows, group_size, scratch
from saebench.nn.kernels.surplus import surplus


class Rough(NamedTuple):
    """Pre-activations of a batch and how far off they may be."""

    z: Tensor
    """`[B, n]`, bfloat16 or float32; overwritten by the next call."""
    errors: Tensor
    """`[B]`: E."""
    rho: float

    @property
    def screened(self) -> bool:
        """Whether z is bfloat16, and values must be computed again."""
        return self.z.dtype == torch.bfloat16


class Found(NamedTuple):
    """Candidates in order of place."""

    values: Tensor
    """`[nnz]`, float32."""
    places: Tensor
    """`[nnz]`: their places in `[B * n]`."""
    fallback_rows: int
    """Tokens without a usable cut."""


@torch.no_grad()
def linear_batch_topk(x: Tensor, W: Tensor, b: Tensor | None, k: int, columns: Tensor | None = None) -> Entries:
    """The k * B largest positive entries of `x @ W.T + b` over the whole batch (BatchTopK, arXiv 2412.06410).

    Ties go to the earliest. At most k * B: fewer where fewer are positive.

    Args:
        x: `[B, d]`. W: `[n, d]`. b: `[n]` or None.
        k: Mean number of entries a token.
        columns: `[m]` latents whose pre-activations are to be given as well.
    """
    n_rows, n = x.shape[0], W.shape[0]
    if x.device.type != "cpu" or x.dtype != torch.float32 or n_rows == 0 or k >= n:
        return batch_topk_reference(x, W, b, k)._replace(columns=linear_columns(x, W, b, columns))
    x = x.contiguous()
    rough = _rough(x, W, b)
    found = _candidates(x, W, b, rough, _lower_bound(rough, k))
    chosen = _largest(found.values, found.places, k * n_rows, n_rows, n)
    taken = None if columns is None else rough.z.index_select(1, columns)
    return chosen._replace(columns=taken, fallback_rows=found.fallback_rows)


def batch_topk_reference(x: Tensor, W: Tensor, b: Tensor | None, k: int) -> Entries:
    """What `linear_batch_topk` chooses, from the whole product: slow and obvious. Any device and dtype."""
    values, latents, offsets = batch_topk(functional.linear(x, W, b).relu_(), k)
    codes = SparseCodes(values, latents, offsets, W.shape[0]).nonzero()
    return Entries(codes.values, codes.latents, codes.offsets)


def _rough(x: Tensor, W: Tensor, b: Tensor | None) -> Rough:
    """Step 1, a block of tokens at a time."""
    n_rows, n = x.shape[0], W.shape[0]
    backend = backends.current(x.device, x.dtype)
    rounded = Rounded.of(W, b) if backend == "bf16-screen" else None
    z = scratch("z", (n_rows, n), torch.float32 if rounded is None else torch.bfloat16)
    errors = torch.zeros(n_rows)
    for rows in _blocks(z):
        if rounded is None:
            z[rows] = backends.product(x[rows], W, b, backend)
        else:
            low, errors[rows] = rounded.error(x[rows])
            torch.mm(low, rounded.W.T, out=z[rows])
    return Rough(z, errors, 0.0 if rounded is None else RHO)


def _lower_bound(rough: Rough, k: int) -> float:
    """Step 2.

    Integers order the bits of floats that are not negative; a group of negative ones gives one of its members.
    """
    n_rows, n = rough.z.shape
    size = group_size(n, k)
    maxima = bits_of(rough.z).view(n_rows, size, n // size).amax(1).view(rough.z.dtype).float()
    lower = (maxima * (1 - rough.rho) - rough.errors.unsqueeze(1)).view(-1).numpy()
    return _nth_largest(lower, k * n_rows)


def _candidates(x: Tensor, W: Tensor, b: Tensor | None, rough: Rough, bound: float) -> Found:
    """Step 3, and the values of step 4."""
    n = W.shape[0]
    values: list[Tensor] = []
    places: list[Tensor] = []
    fallback_rows = 0
    for rows in _blocks(rough.z):
        z = rough.z[rows]
        cut = (bound - rough.errors[rows]) / ((1 + rough.rho) * SAFE)
        if not rough.screened:
            cut = cut.clamp_min(torch.finfo(torch.float32).tiny)  # without an error every token has a usable cut
        found = at_least(z, cut, n)
        if rough.screened:
            exact = entry_dots(x[rows], W, found.latents, found.offsets)
            if b is not None:
                exact += b[found.latents]
        else:
            exact = z.reshape(-1)[found.flat]
        values.append(exact)
        places.append(found.flat + rows.start * n)
        if rough.screened and found.overflow.numel():
            fallback_rows += found.overflow.numel()
            again = rows.start + found.overflow
            with surplus():
                whole, flat = block_above(x[again], W, b, 0.0, "plain")
            values.append(whole)
            places.append(again[torch.div(flat, n, rounding_mode="floor")] * n + flat % n)
    all_values, all_places = torch.cat(values), torch.cat(places)
    if fallback_rows:
        order = all_places.argsort()
        all_values, all_places = all_values[order], all_places[order]
    return Found(all_values, all_places, fallback_rows)


def _largest(values: Tensor, places: Tensor, n_chosen: int, n_rows: int, n: int) -> Entries:
    """The `n_chosen` largest positive of candidates in order of place; of equal ones the earliest."""
    if values.numel() > n_chosen:
        last = _nth_largest(values.numpy(), n_chosen)
        above, equal = values > last, torch.nonzero(values == last).squeeze(1)
        above[equal[: n_chosen - int(above.sum())]] = True
        values, places = values[above], places[above]
    positive = values > 0
    return joined([values[positive]], [places[positive]], n_rows, n)


def _nth_largest(values: np.ndarray[tuple[int], np.dtype[np.float32]], nth: int) -> float:
    at = len(values) - nth
    return float(np.partition(values, at)[at])


def _blocks(z: Tensor) -> list[slice]:
    """Blocks of tokens whose pre-activations stay in the cache."""
    step = block_rows(z.shape[1], z.dtype)
    return [slice(start, start + step) for start in range(0, len(z), step)]
