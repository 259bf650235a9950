"""Pre-activations above a latent's own threshold. No gradients here; see `autograd`."""

from __future__ import annotations

from typing import NamedTuple

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
    block_rows,
    nonzero_flat,
    scratch,
)
from saebench.nn.kernels.surplus import surplus

DENSE = 1 / 8
"""Above this share of possible entries in a block the whole float32 product costs less than looking at them one by one.
"""


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


def joined(values: list[Tensor], flat: list[Tensor], n_rows: int, n: int) -> Entries:
    """Entries from pieces of their values and of their places in `[B * n]`, which rise."""
    places = torch.cat(flat)
    rows = torch.div(places, n, rounding_mode="floor")
    return Entries(torch.cat(values), places - rows * n, SparseCodes.offsets_from_rows(rows, n_rows))


@torch.no_grad()
def linear_above(x: Tensor, W: Tensor, b: Tensor | None, threshold: Tensor | float) -> Entries:
    """All entries of `x @ W.T + b` above `threshold` (scalar or `[n]`).

    Where the back end is `bf16-screen`, each latent's threshold is moved into its bias, so that one comparison with one
    number finds all that may be above; their float32 values decide.
    """
    n_rows, n = x.shape[0], W.shape[0]
    backend = backends.current(x.device, x.dtype)
    if backend != "bf16-screen" or n_rows == 0:
        step = block_rows(n, torch.float32) if x.device.type == "cpu" else n_rows
        found = [block_above(x[i : i + step], W, b, threshold, backend) for i in range(0, n_rows, max(1, step))]
        places = [flat + i * step * n for i, (_, flat) in enumerate(found)]
        return joined([values for values, _ in found], places, n_rows, n) if found else _nothing(x)
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
            with surplus():
                kept, flat = block_above(block, W, b, threshold, "onednn" if backends.onednn_available() else "plain")
        else:
            exact = entry_dots(block, W, found_here.latents, found_here.offsets)
            if b is not None:
                exact += b[found_here.latents]
            above = exact > cuts[found_here.latents]
            kept, flat = exact[above], found_here.flat[above]
        values.append(kept)
        places.append(flat + start * n)
    return joined(values, places, n_rows, n)


def _nothing(x: Tensor) -> Entries:
    empty = torch.zeros(0, dtype=torch.long, device=x.device)
    return Entries(x.new_zeros(0), empty, torch.zeros(1, dtype=torch.long, device=x.device))


def block_above(
    x: Tensor, W: Tensor, b: Tensor | None, threshold: Tensor | float, backend: str
) -> tuple[Tensor, Tensor]:
    """Values and flat places, from the whole product."""
    z = functional.linear(x, W, b) if backend == "plain" else backends.product(x, W, b, backend)
    flat = nonzero_flat(z > threshold)
    return z.view(-1)[flat], flat
