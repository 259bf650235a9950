"""Exact top-k of an encoder, ties to the lowest index; most pre-activations are never computed in float32."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saebench.nn.kernels import backends
from saebench.nn.kernels.dense_topk import linear_columns, reach_of, select_reference
from saebench.nn.kernels.products import entry_dots
from saebench.nn.kernels.screen import (
    RHO,
    SAFE,
    Candidates,
    Rounded,
    at_least,
    bits_of,
    block_rows,
    grown,
    kth_lower_bound,
    scratch,
)
from saebench.nn.kernels.surplus import surplus


class Selection(NamedTuple):
    """The chosen latents of each token and how they were found."""

    values: Tensor
    """`[B, k]` in x's dtype, without gradient."""
    latents: Tensor
    """`[B, k]` int64, ascending."""
    fallback_rows: int
    """Tokens that the bfloat16 screen could not decide, computed again as a whole."""
    columns: Tensor | None = None
    """`[B, m]` pre-activations of the latents asked for, in the precision of the back end's product."""


class Workspace:
    """Memory for the columns of `linear_select`, which belongs to the caller and lives from step to step.

    A call with a workspace overwrites the columns of the last call with the same one. Fresh memory of this size would
    cost more than what is done in it.
    """

    def __init__(self) -> None:
        self._flat: Tensor | None = None

    def columns(self, n_rows: int, n_columns: int, dtype: torch.dtype) -> Tensor:
        """`[n_rows, n_columns]`, of any content."""
        size = n_rows * n_columns
        self._flat = grown(self._flat, size, dtype)
        return self._flat[:size].view(n_rows, n_columns)


class Screened(NamedTuple):
    """What the screen knows of each token of a block, `[B]` each."""

    kth: Tensor
    """At least k entries of z reach it."""
    error: Tensor
    """E of `saebench.nn.kernels.screen`."""
    reach: Tensor
    """Twice the error of a float32 value, and a little more."""


@torch.no_grad()
def linear_select(
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    k: int,
    columns: Tensor | None = None,
    workspace: Workspace | None = None,
) -> Selection:
    """The k largest entries of each row of `x @ W.T + b`, decided in float64 where rounding leaves the k-th place open.

    A float32 product carries an error of at most `(d + 2) u (||x|| max ||w|| + max |b|)` in any order of summation, u
    its unit roundoff (Higham 2002, section 3.1). Where the smallest chosen and the largest other entry lie closer than
    twice that (and one percent, for the rounding of the norms), the exact order of those within reach is found from
    products in float64.

    On a CPU in float32 the work is done in blocks of tokens: what surely contains the k largest is found by comparisons
    alone (see `saebench.nn.kernels.screen`), from a bfloat16 product where the CPU has units for it, and only that is
    looked at closely. Everywhere else `select_reference` does it. All ways choose the same latents.

    Args:
        x: `[B, d]`. W: `[n, d]`. b: `[n]` or None.
        k: 0 <= k <= n.
        columns: `[m]` latents whose pre-activations are to be given as well: they come out of the same product.
        workspace: Memory for `columns`, kept by the caller. None: fresh memory.
    """
    n = W.shape[0]
    if x.device.type != "cpu" or x.dtype != torch.float32 or not 0 < k < n:
        return Selection(*select_reference(x, W, b, k), 0, linear_columns(x, W, b, columns))
    backend, x = backends.current(x.device, x.dtype), x.contiguous()
    values = torch.empty(x.shape[0], k)
    latents = torch.empty(x.shape[0], k, dtype=torch.long)
    rounded = Rounded.of(W, b) if backend == "bf16-screen" else None
    lows, errors = rounded.error(x) if rounded is not None else (x, x)
    reach = reach_of(x, W, b, rounded.norm if rounded is not None else None)
    fallback, low_dtype = 0, torch.float32 if rounded is None else torch.bfloat16
    taken = None
    if columns is not None:
        taken = (workspace or Workspace()).columns(len(x), columns.numel(), low_dtype)
    block = block_rows(n, low_dtype)
    for start in range(0, x.shape[0], block):
        rows = slice(start, start + block)
        if rounded is None:
            z = _product(x[rows], W, b, backend)
            found = at_least(z, kth_lower_bound(z, k) - reach[rows], _most(k))
            exact = z.view(-1)[found.flat]
        else:
            low, error = lows[rows], errors[rows]
            z = torch.mm(low, rounded.W.T, out=scratch("z", (low.shape[0], n), torch.bfloat16))
            kth = kth_lower_bound(z, k)
            found = at_least(z, (kth * (1 - RHO) - 2 * error) / ((1 + RHO) * SAFE), _most(k))
            screen = Screened(kth, error, reach[rows])
            exact = _exact_values(x[rows], W, b, k, z.view(-1)[found.flat].float(), found, screen)
            fallback += found.overflow.numel()
        if taken is not None and columns is not None and columns.numel():
            np.take(bits_of(z).numpy(), columns.numpy(), axis=1, out=bits_of(taken[rows]).numpy())
        values[rows], latents[rows] = _choose(x[rows], W, b, k, found, exact, reach[rows])
        if found.overflow.numel():
            again = start + found.overflow
            with surplus():
                values[again], latents[again] = select_reference(x[again], W, b, k)
    return Selection(values, latents, fallback, taken)


def _most(k: int) -> int:
    return 4 * k + 64


def _product(x: Tensor, W: Tensor, b: Tensor | None, backend: str) -> Tensor:
    out = scratch("z32", (x.shape[0], W.shape[0]), torch.float32) if backend == "plain" else None
    return backends.product(x, W, b, backend, out)


def _exact_values(
    x: Tensor, W: Tensor, b: Tensor | None, k: int, rough: Tensor, found: Candidates, screen: Screened
) -> Tensor:
    """`[nnz]`: float32 values of the candidates that can be among the k largest, -inf for the others.

    First come those that reach the screen's lower bound of the k-th largest: at least k of them, so the k-th largest of
    their float32 values bounds the true one from below without the screen's error. Few of the others then remain
    possible.
    """
    exact = torch.full_like(rough, -torch.inf)

    def compute(chosen: Tensor) -> None:
        latents = found.latents[chosen]
        offsets = torch.zeros(len(x) + 1, dtype=torch.long)
        torch.cumsum(torch.bincount(found.rows[chosen], minlength=len(x)), 0, out=offsets[1:])
        values = entry_dots(x, W, latents, offsets)
        exact[chosen] = values if b is None else values.add_(b[latents])

    first = rough >= screen.kth[found.rows]
    compute(torch.nonzero(first).squeeze(1))
    kth = _kth_largest(_padded(exact, found)[0], k).squeeze(1)
    possible = rough * (1 + RHO) + screen.error[found.rows] >= (kth - screen.reach)[found.rows]
    compute(torch.nonzero(possible & ~first).squeeze(1))
    return exact


def _padded(values: Tensor, found: Candidates) -> tuple[Tensor, Tensor]:
    """Candidates as a matrix `[B, widest row]`, -inf where a row has fewer, and the flat place of each in it."""
    n_rows = found.offsets.numel() - 1
    width = int(found.offsets.diff().max())
    place = torch.arange(found.rows.numel()) - found.offsets[found.rows] + found.rows * width
    padded = torch.full((n_rows * width,), -torch.inf)
    padded[place] = values
    return padded.view(n_rows, width), place


def _kth_largest(padded: Tensor, k: int) -> Tensor:
    """`[B, 1]`; -inf for rows with fewer entries."""
    width = padded.shape[1]
    if width < k:
        return torch.full((padded.shape[0], 1), -torch.inf)
    return torch.from_numpy(np.partition(padded.numpy(), width - k, axis=1)[:, width - k : width - k + 1].copy())


def _choose(
    x: Tensor, W: Tensor, b: Tensor | None, k: int, found: Candidates, exact: Tensor, reach: Tensor
) -> tuple[Tensor, Tensor]:
    """The k best of each row's candidates. Rows without candidates come out as anything: they are decided elsewhere."""
    n_rows = x.shape[0]
    padded, place = _padded(exact, found)
    width = padded.shape[1]
    if width < k:  # no row of this block has candidates
        return torch.zeros(n_rows, k), torch.zeros(n_rows, k, dtype=torch.long)
    ids = torch.zeros(n_rows * width, dtype=torch.long)
    ids[place] = found.latents
    ids = ids.view(n_rows, width)
    kth = _kth_largest(padded, k)
    keep = padded >= kth
    empty = found.offsets.diff() == 0
    open_rows = torch.nonzero(((padded >= kth - reach.unsqueeze(1)).sum(1) > k) & ~empty).squeeze(1)
    if open_rows.numel():
        keep[open_rows] = _decided(x, W, b, k, padded, ids, kth, reach, open_rows)
    if bool(empty.any()):
        keep[empty] = torch.arange(width) < k
    return padded[keep].view(n_rows, k), ids[keep].view(n_rows, k)


def _decided(
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    k: int,
    padded: Tensor,
    ids: Tensor,
    kth: Tensor,
    reach: Tensor,
    rows: Tensor,
) -> Tensor:
    """Which candidates of the open `rows` are chosen: those near the k-th place by their float64 values."""
    near, ids, kth, reach = padded[rows], ids[rows], kth[rows], reach[rows].unsqueeze(1)
    rank = torch.where(near > kth, torch.inf, -torch.inf).double()
    row, column = torch.nonzero((near - kth).abs() <= reach, as_tuple=True)
    latent = ids[row, column]
    value = (x[rows[row]].double() * W[latent].double()).sum(1)
    rank[row, column] = value if b is None else value + b[latent].double()
    # candidates ascend, so ties go to the lowest index
    best = rank.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(near, dtype=torch.bool).scatter_(1, best, True)
