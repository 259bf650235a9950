"""Which pre-activations can matter, from a bfloat16 product with a proven error bound.

Legend: B tokens of a block, n latents, d coordinates, u the unit roundoff of bfloat16 (2^-8), v = x . w + b the exact
value.

x and W are rounded to bfloat16; b goes along as two more columns (its bfloat16 value and the rest), multiplied by ones.
The product accumulates in float32 and is rounded once more to bfloat16, which gives z. With r(.) the rounding residual
of a vector, measured,

    |z - v| <= E + rho |z|,    rho = u / (1 - u),
    E = ||r(x)|| max ||w|| + ||x~|| max ||r(w)|| + (d + 4) 2^-23 (||x~|| max ||w~|| + max |b|) + max |r(b)|.

2^-23 and not 2^-24, because some units round sums to odd. Every norm has sqrt(d) 2^-63 added and E has (d + 4) 2^-124,
for squares and products too small for float32, which units may also take for zero. Residual norms are about 0.0017 of
the vectors', half of what u alone would say. So `v >= c` is possible only where `z >= (c - E) / (1 + rho)`: a set that
surely holds all that may be chosen, found by one comparison of 16-bit integers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from saebench.nn.cost import block_tokens

U = 2.0**-8
RHO = U / (1 - U)
SAFE = 1 + 1e-5
"""For the rounding of a cut, which is computed in float32."""
GROUP = 32
"""Latents of one group, at most; the maxima of groups give a lower bound of the k-th largest."""
_ROUND_ROWS = 1024

_local = threading.local()
_helpers: ThreadPoolExecutor | None = None


def scratch(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A buffer that the next call with this name overwrites.

    Fresh memory of this size would cost more than the work in it.
    """
    held: dict[str, Tensor] = _local.__dict__.setdefault("held", {})
    size = int(np.prod(shape))
    flat = held[name] = grown(held.get(name), size, dtype)
    return flat[:size].view(shape)


def grown(held: Tensor | None, size: int, dtype: torch.dtype) -> Tensor:
    """`held` where it has `size` values of this dtype, else new memory of half as much again as it had, at least.

    A buffer that is asked for a little more at each step (latents die one by one) would leave a hole behind each time
    that is too small for the next: the heap of a run with AuxK grew by hundreds of megabytes.
    """
    same = held is not None and held.dtype == dtype
    if held is not None and same and held.numel() >= size:
        return held
    room = max(size, held.numel() * 3 // 2) if held is not None and same else size
    with torch.inference_mode(False):  # a tensor made in inference mode could not be written outside of it
        return torch.empty(room, dtype=dtype)


def block_rows(d_sae: int, dtype: torch.dtype) -> int:
    """Tokens of one block: its pre-activations stay in the cache between the passes over them.

    Half as many in float32.
    """
    return block_tokens(d_sae) if dtype == torch.bfloat16 else max(256, block_tokens(d_sae) // 4)


def bits_of(x: Tensor) -> Tensor:
    """The same memory as integers, which vector units compare faster.

    Numbers that are not negative have the same order as their bits.
    """
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])


@dataclass(frozen=True)
class Rounded:
    """An encoder in bfloat16 and what the bound needs of it: `W [n, d + 2]` with b in its last columns, four maxima."""

    W: Tensor
    norm: float
    residual: float
    bias: float
    bias_residual: float

    @classmethod
    def of(cls, W: Tensor, b: Tensor | None) -> Rounded:
        """Rounds `W [n, d]` and `b [n]`, float32 on the CPU, in pieces that stay in the cache."""
        n, d = W.shape
        out = scratch("W", (n, d + 2), torch.bfloat16)
        maxima = []
        for start in range(0, n, _ROUND_ROWS):
            own, low = W[start : start + _ROUND_ROWS], out[start : start + _ROUND_ROWS, :d]
            low.copy_(own)
            maxima.append(torch.stack([torch.linalg.vector_norm(part, dim=1).amax() for part in (own, own - low)]))
        norm, residual = (torch.stack(maxima).amax(0) + _lost(d)).tolist()
        return cls(out, norm, residual, 0.0, 0.0).with_bias(b)

    def with_bias(self, b: Tensor | None) -> Rounded:
        """The same matrix with another bias."""
        d = self.W.shape[1] - 2
        if b is None:
            self.W[:, d:] = 0
            return replace(self, bias=0.0, bias_residual=0.0)
        high = b.bfloat16()
        low = (b - high.float()).bfloat16()
        self.W[:, d], self.W[:, d + 1] = high, low
        rest = (b - high.float() - low.float()).abs().amax()
        return replace(self, bias=float(b.abs().amax()), bias_residual=float(rest))

    def error(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """`x [B, d]` in bfloat16 with two columns of ones, and E `[B]`."""
        n_rows, d = x.shape
        low = scratch("x", (n_rows, d + 2), torch.bfloat16)
        low[:, :d] = x
        low[:, d:] = 1
        rounded = low[:, :d]
        length = torch.linalg.vector_norm(rounded, dim=1, dtype=torch.float32) + _lost(d)
        error = (
            (torch.linalg.vector_norm(x - rounded, dim=1) + _lost(d)) * self.norm
            + length * self.residual
            + (d + 4) * 2.0**-23 * (length * (self.norm + self.residual) + self.bias)
            + self.bias_residual
            + (d + 4) * 2.0**-124
        )
        return low, error * (1 + (d + 16) * 2.0**-23)  # the norms are sums of d squares in float32


def _lost(d: int) -> float:
    """What the norm of d values may lack because squares below 2^-126 are lost."""
    return math.sqrt(d) * 2.0**-63


@dataclass(frozen=True)
class Candidates:
    """Entries that may matter, in CSR order.

    `latents [nnz]` int64 ascend inside a row; `offsets [B + 1]`; `flat [nnz]` are their places in `[B * n]`.
    """

    flat: Tensor
    latents: Tensor
    rows: Tensor
    offsets: Tensor
    overflow: Tensor
    """`[m]` rows that had no usable cut or too many entries: empty here, to be decided from the whole product."""


def group_size(n: int, k: int) -> int:
    """Latents of a group: at most `GROUP`, dividing n, leaving 8 k groups where n allows."""
    size = GROUP
    while size > 1 and (n % size or n // size < 8 * k):
        size //= 2
    return size


def kth_lower_bound(z: Tensor, k: int) -> Tensor:
    """`[B]` float32: a value that at least k entries of each row of `z [B, n]` reach; not above 0 where none was found.

    The k-th largest of the groups' maxima is one. Floats are compared as the integers of their bits: right for numbers
    that are not negative, and a group of negative ones gives one of its members, which is a lower bound as well.
    """
    n_rows, n = z.shape
    size = group_size(n, k)
    bits = bits_of(z)
    maxima = bits.view(n_rows, size, n // size).amax(1) if size > 1 else bits
    m = maxima.shape[1]
    kth = torch.from_numpy(np.partition(maxima.numpy(), m - k, axis=1)[:, m - k].copy())
    return kth.view(z.dtype).float()


def at_least(z: Tensor, cut: Tensor, most: int) -> Candidates:
    """Entries of `z [B, n]` that reach their row's cut.

    Args:
        z: bfloat16 or float32, contiguous.
        cut: `[B]` float32. Rounded down to z's dtype; a row whose cut is not positive is put into `overflow`.
        most: Rows with more entries than this are put there as well.
    """
    n_rows, n = z.shape
    half = z.element_size() == 2
    usable = (cut > 0) & (cut < torch.inf)
    bits = cut.contiguous().view(torch.int32)
    if half:
        bits = (bits >> 16).to(torch.int16)
    bits = torch.where(usable, bits, torch.iinfo(bits.dtype).max)
    mask = scratch("mask", (n_rows, n), torch.bool)
    values, cuts, hits = z.view(bits.dtype).numpy(), bits.unsqueeze(1).numpy(), mask.numpy()
    _by_rows(n_rows, lambda rows: np.greater_equal(values[rows], cuts[rows], out=hits[rows]))
    flat = nonzero_flat(mask)
    rows = torch.div(flat, n, rounding_mode="floor")
    counts = torch.bincount(rows, minlength=n_rows)
    overflow = torch.nonzero(~usable | (counts > most)).squeeze(1)
    if overflow.numel() and int(counts[overflow].sum()):
        counts[overflow] = 0
        keep = torch.ones(n_rows, dtype=torch.bool)
        keep[overflow] = False
        kept = keep[rows]
        flat, rows = flat[kept], rows[kept]
    offsets = torch.zeros(n_rows + 1, dtype=torch.long)
    torch.cumsum(counts, 0, out=offsets[1:])
    return Candidates(flat, flat - rows * n, rows, offsets, overflow)


def _by_rows(n_rows: int, work: Callable[[slice], object]) -> None:
    """Work of numpy's, which knows no threads, on as many parts of the rows as torch uses threads."""
    global _helpers
    parts = min(torch.get_num_threads(), n_rows // 64)
    if parts < 2:
        work(slice(None))
        return
    if _helpers is None:
        _helpers = ThreadPoolExecutor(thread_name_prefix="saebench-nn")
    bounds = [n_rows * part // parts for part in range(parts + 1)]
    others = [_helpers.submit(work, slice(start, stop)) for start, stop in pairwise(bounds[1:])]
    work(slice(0, bounds[1]))
    for other in others:
        other.result()


def nonzero_flat(mask: Tensor) -> Tensor:
    """`[m]` int64 places of the true entries of a contiguous bool tensor, eight at a time."""
    flat = mask.view(-1)
    if flat.numel() % 8:
        return flat.nonzero().squeeze(1)
    eights = flat.view(torch.uint8).view(torch.int64)
    hit = eights.nonzero().squeeze(1)
    inside = eights[hit].view(torch.uint8).nonzero().squeeze(1)
    return hit[inside >> 3] * 8 + (inside & 7)
