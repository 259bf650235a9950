"""Pre-activations above a threshold: a latent's own, or one for the whole batch. No gradients here; see `autograd`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from saebench.api.codes import SparseCodes
from saebench.nn.kernels import backends
from saebench.nn.kernels.products import entry_dots
from saebench.nn.kernels.screen import (
    RHO,
    SAFE,
    Rounded,
    at_least,
    bits_of,
    block_rows,
    group_size,
    nonzero_flat,
    scratch,
)
from saebench.nn.kernels.select import batch_topk, linear_columns

DENSE = 1 / 8
"""Above this share of possible entries in a block the whole float32 product costs less than looking at them one by one."""


class Entries(NamedTuple):
    """Entries of `x @ W.T + b` in CSR order."""

    values: Tensor
    """`[nnz]`, without gradient."""
    latents: Tensor
    """`[nnz]` int64, ascending inside a row."""
    offsets: Tensor
    """`[B + 1]` int64."""
    columns: Tensor | None = None
    """`[B, m]` pre-activations of the latents asked for."""
    fallback_rows: int = 0
    """Of `linear_batch_topk`: tokens decided from the whole product, as the screen could not decide them."""


def _joined(values: list[Tensor], flat: list[Tensor], n_rows: int, n: int) -> Entries:
    places = torch.cat(flat)
    rows = torch.div(places, n, rounding_mode="floor")
    return Entries(torch.cat(values), places - rows * n, SparseCodes.offsets_from_rows(rows, n_rows))


@torch.no_grad()
def linear_above(x: Tensor, W: Tensor, b: Tensor | None, threshold: Tensor | float) -> Entries:
    """All entries of `x @ W.T + b` above `threshold` (scalar or `[n]`).

    Where the back end is `bf16-screen`, each latent's threshold is moved into its bias, so that one comparison with one number finds
    all that may be above; their float32 values decide.
    """
    n_rows, n = x.shape[0], W.shape[0]
    backend = backends.current(x.device, x.dtype)
    if backend != "bf16-screen" or n_rows == 0:
        step = block_rows(n, torch.float32) if x.device.type == "cpu" else n_rows
        found = [_block_above(x[i : i + step], W, b, threshold, backend) for i in range(0, n_rows, max(1, step))]
        places = [flat + i * step * n for i, (_, flat) in enumerate(found)]
        return _joined([values for values, _ in found], places, n_rows, n) if found else _nothing(x)
    x, cuts = x.contiguous(), torch.as_tensor(threshold, dtype=x.dtype).expand(n)
    rounded = Rounded.of(W, None)
    shift = 4 * float(rounded.error(x)[1].amax())
    rounded = rounded.with_bias((b if b is not None else 0) - cuts + shift)
    values, places = [], []
    step = block_rows(n, torch.bfloat16)
    for start in range(0, n_rows, step):
        block = x[start : start + step]
        low, error = rounded.error(block)
        z = torch.mm(low, rounded.W.T, out=scratch("z", (len(block), n), torch.bfloat16))
        found_here = at_least(z, (shift - error) / ((1 + RHO) * SAFE), n)
        if found_here.overflow.numel() or found_here.flat.numel() > DENSE * z.numel():
            kept, flat = _block_above(block, W, b, threshold, "onednn" if backends.onednn_available() else "plain")
        else:
            exact = entry_dots(block, W, found_here.latents, found_here.offsets)
            if b is not None:
                exact += b[found_here.latents]
            above = exact > cuts[found_here.latents]
            kept, flat = exact[above], found_here.flat[above]
        values.append(kept)
        places.append(flat + start * n)
    return _joined(values, places, n_rows, n)


def _nothing(x: Tensor) -> Entries:
    empty = torch.zeros(0, dtype=torch.long, device=x.device)
    return Entries(x.new_zeros(0), empty, torch.zeros(1, dtype=torch.long, device=x.device))


def _block_above(
    x: Tensor, W: Tensor, b: Tensor | None, threshold: Tensor | float, backend: str
) -> tuple[Tensor, Tensor]:
    """Values and flat places, from the whole product."""
    z = functional.linear(x, W, b) if backend == "plain" else backends.product(x, W, b, backend)
    flat = nonzero_flat(z > threshold)
    return z.view(-1)[flat], flat


@torch.no_grad()
def linear_batch_topk(x: Tensor, W: Tensor, b: Tensor | None, k: int, columns: Tensor | None = None) -> Entries:
    """The k * B largest positive entries of `x @ W.T + b` over the whole batch (BatchTopK, arXiv 2412.06410); ties to the earliest.

    At most k * B: fewer where fewer are positive. `columns` as in `linear_select`.
    """
    n_rows, n = x.shape[0], W.shape[0]
    backend = backends.current(x.device, x.dtype)
    if x.device.type != "cpu" or x.dtype != torch.float32 or n_rows == 0 or k >= n:
        values, latents, offsets = batch_topk(functional.linear(x, W, b).relu_(), k)
        codes = SparseCodes(values, latents, offsets, n).nonzero()
        return Entries(codes.values, codes.latents, codes.offsets, linear_columns(x, W, b, columns))
    x, screened = x.contiguous(), backend == "bf16-screen"
    rounded = Rounded.of(W, b) if screened else None
    z = scratch("z", (n_rows, n), torch.bfloat16 if screened else torch.float32)
    errors, rho = torch.zeros(n_rows), RHO if screened else 0.0
    block = block_rows(n, z.dtype)
    for start in range(0, n_rows, block):
        rows = slice(start, start + block)
        if rounded is not None:
            low, errors[rows] = rounded.error(x[rows])
            torch.mm(low, rounded.W.T, out=z[rows])
        else:
            z[rows] = backends.product(x[rows], W, b, backend)
    wanted, size = k * n_rows, group_size(n, k)
    maxima = bits_of(z).view(n_rows, size, n // size).amax(1).view(z.dtype).float()
    lower = (maxima * (1 - rho) - errors.unsqueeze(1)).view(-1)
    bound = float(np.partition(lower.numpy(), lower.numel() - wanted)[lower.numel() - wanted])
    values_found: list[Tensor] = []
    places: list[Tensor] = []
    undecided = 0
    for start in range(0, n_rows, block):
        rows = slice(start, start + block)
        cut = (bound - errors[rows]) / ((1 + rho) * SAFE)
        # A screened token whose error reaches the bound comes out as overflow: anything positive there may count.
        found = at_least(z[rows], cut if screened else cut.clamp_min(torch.finfo(torch.float32).tiny), n)
        if screened:
            exact = entry_dots(x[rows], W, found.latents, found.offsets)
            if b is not None:
                exact += b[found.latents]
        else:
            exact = z[rows].reshape(-1)[found.flat]
        values_found.append(exact)
        places.append(found.flat + start * n)
        if screened and found.overflow.numel():
            undecided += found.overflow.numel()
            again = start + found.overflow
            whole, flat = _block_above(x[again], W, b, 0.0, "plain")
            values_found.append(whole)
            places.append(again[torch.div(flat, n, rounding_mode="floor")] * n + flat % n)
    order = torch.cat(places).argsort() if undecided else slice(None)
    chosen = _largest(torch.cat(values_found)[order], torch.cat(places)[order], wanted, n_rows, n)
    return chosen._replace(fallback_rows=undecided, columns=None if columns is None else z.index_select(1, columns))


def _largest(values: Tensor, places: Tensor, wanted: int, n_rows: int, n: int) -> Entries:
    """The `wanted` largest positive of candidates in order of place; of equal ones the earliest."""
    if values.numel() > wanted:
        kth = float(np.partition(values.numpy(), values.numel() - wanted)[values.numel() - wanted])
        above, equal = values > kth, torch.nonzero(values == kth).squeeze(1)
        above[equal[: wanted - int(above.sum())]] = True
        values, places = values[above], places[above]
    positive = values > 0
    return _joined([values[positive]], [places[positive]], n_rows, n)
