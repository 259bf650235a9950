"""Which pairs can matter, from products in low precision with a proven error bound.

Unit rows p and q are rounded to bfloat16 (float32 where there are no units for it, and on a GPU), and what is to be
taken off, u_i and v_j, goes along as more columns, so that one product gives z, an estimate of r = p . q - u_i - v_j.
The product accumulates in float32 over K columns. With e(.) the largest norm of a rounding residual, measured,

    |z - r| <= E + rho |z|,   E = e(p) + e(q) + e(p) e(q) + e(u) + e(v) + (K + 4) 2^-23 (1.02 + max |u| + max |v|),

rho = 2^-8 / (1 - 2^-8) for the last rounding to bfloat16 and 0 in float32; 2^-23 and not 2^-24, because some units
round sums to odd. So `r > -margin` is possible only where `z >= -(margin + E) / (1 - rho)`: one comparison of integers,
because the bits of floats order them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saebench.matching.solve.similarity import Similarity
from saebench.nn.kernels.backends import cpu_features
from saebench.nn.kernels.screen import nonzero_flat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

TILE = (1024, 4096)
"""Rows and columns of one product: 8 MB in bfloat16, which stay in the cache between the passes over them."""
_ROUND_ROWS = 4096
_SPLITS = {torch.bfloat16: 3, torch.float32: 2}
"""Parts that u and v are split into: 24 bits and more."""


class Screen:
    """Low-precision copies of the unit rows of a `Similarity`, row variants of all signs one after another.

    Args:
        similarity: What is screened.
        dtype: bfloat16 or float32; None takes what suits the device.
        on_tile: Called with the share of a pass that a tile was; may raise to end the pass.
    """

    def __init__(
        self,
        similarity: Similarity,
        dtype: torch.dtype | None = None,
        on_tile: Callable[[float], None] = lambda share: None,
    ) -> None:
        self.similarity = similarity
        self.device = similarity.device
        if dtype is None:
            dtype = torch.bfloat16 if self.device.type == "cpu" and "bf16" in cpu_features() else torch.float32
        self.dtype = dtype
        self.on_tile = on_tile
        self.last_rounding = 2.0**-8 if dtype == torch.bfloat16 else 0.0
        self._integers = torch.int16 if dtype == torch.bfloat16 else torch.int32
        signs = [similarity.sign(variant) for variant in range(similarity.n_signs)]
        self.P, self._residual_p = self._rounded(0, similarity.n, signs)
        self.Q, self._residual_q = self._rounded(1, similarity.m, [torch.ones_like(signs[0])])

    def _rounded(self, side: int, n: int, signs: list[Tensor]) -> tuple[Tensor, float]:
        out = torch.empty(len(signs) * n, self.similarity.width, dtype=self.dtype, device=self.device)
        worst = 0.0
        for start in range(0, n, _ROUND_ROWS):
            rows = self.similarity.unit_rows(side, start, min(n, start + _ROUND_ROWS))
            for variant, sign in enumerate(signs):
                signed = rows * sign
                low = signed.to(self.dtype)
                out[variant * n + start : variant * n + start + len(low)] = low
            worst = max(worst, float(torch.linalg.vector_norm(signed - low.double(), dim=1).amax()))
        return out, worst * (1 + 1e-9)

    @staticmethod
    def nbytes(similarity: Similarity) -> int:
        """Memory that a screen of this takes: its copies and a tile, in float32 at worst."""
        rows = similarity.n * similarity.n_signs + similarity.m
        return 4 * (rows * similarity.width + 4 * TILE[0] * TILE[1])

    # ---- heuristics: which pairs to begin with
    # ------------------------------------------------------------------------

    def strongest(self, per_row: int) -> Iterator[tuple[Places, Places]]:
        """Tile by tile, pairs among the about `per_row` largest of their row or of their column.

        Thresholds are estimated from samples.
        No promise: pairs of cosine 0 and less never come, and crowded rows (duplicates) give a sample of theirs.
        """
        n = self.similarity.n
        row_cut = self._sampled_cut(self.P, self.Q, per_row).view(self.similarity.n_signs, n).amax(0)
        column_cut = self._sampled_cut(self.Q, self.P, per_row)
        generator = np.random.default_rng(0)
        for i, j, z in self.products():
            mask = reach(z, row_cut[i % n].unsqueeze(1))
            mask |= reach(z, column_cut[j].unsqueeze(0))
            rows, columns = hits(mask, i, j)
            if len(rows) > 16 * per_row * len(i):
                chosen = np.sort(generator.choice(len(rows), 16 * per_row * len(i), replace=False))
                rows, columns = rows[chosen], columns[chosen]
            yield rows % n, columns

    def _sampled_cut(self, X: Tensor, Y: Tensor, per_row: int) -> Tensor:
        """Bits of a value that about `per_row` entries of each row of `X @ Y.T` reach."""
        m = len(Y)
        n_sampled = min(m, max(2048, m // 8))
        generator = torch.Generator().manual_seed(m)
        chosen = torch.randperm(m, generator=generator)[:n_sampled].sort().values.to(self.device)
        sample = Y[chosen]
        rank = min(n_sampled, max(2, round(per_row * n_sampled / m)))
        group = 8 if n_sampled % 8 == 0 and n_sampled // 8 >= 16 * rank else 1
        cuts = []
        for start in range(0, len(X), TILE[0]):
            z = torch.mm(X[start : start + TILE[0]], sample.T).view(self._integers)
            if group > 1:
                z = z.view(len(z), group, -1).amax(1)
            if self.device.type == "cpu":
                k = z.shape[1] - rank
                cuts.append(torch.from_numpy(np.partition(z.numpy(), k, axis=1)[:, k].copy()))
            else:
                cuts.append(torch.topk(z, rank, dim=1).values[:, -1])
        return torch.cat(cuts).clamp_min(1)

    # ---- proofs
    # -------------------------------------------------------------------------------------------------------

    def error(self, u: Floats, v: Floats) -> float:
        """E of the module's docstring."""
        a, b = self._residual_p, self._residual_q
        unit = 2.0 ** (-8 * _SPLITS[self.dtype]) if self.dtype == torch.bfloat16 else 2.0**-46
        size_u, size_v = float(np.abs(u).max(initial=0)), float(np.abs(v).max(initial=0))
        columns = self.similarity.width + 2 * _SPLITS[self.dtype]
        return a + b + a * b + unit * (size_u + size_v) + (columns + 4) * 2.0**-23 * (1.02 + size_u + size_v)

    def possible(
        self, u: Floats, v: Floats, margin: float, rows: Places | None = None, columns: Places | None = None
    ) -> Iterator[tuple[Places, Places]]:
        """Tile by tile, pairs of `rows` and `columns` (default all): every one with `c_ij - u_i - v_j > -margin`.

        A pair may come twice where there are several signs.
        """
        n = self.similarity.n
        rho = self.last_rounding / (1 - self.last_rounding)
        cut = -(margin + self.error(u, v)) / (1 - rho) * (1 + 1e-6)
        u_parts, v_parts = self._split(-u), self._split(-v)
        ones = torch.ones(1, _SPLITS[self.dtype], dtype=self.dtype, device=self.device)

        def left(index: Tensor) -> Tensor:
            own = u_parts[index % n]
            return torch.cat([self.P[index], own, ones.expand(len(index), -1)], 1)

        def right(index: Tensor) -> Tensor:
            return torch.cat([self.Q[index], ones.expand(len(index), -1), v_parts[index]], 1)

        limit = unsigned_limit(cut, self.dtype)
        for i, j, z in self.products(left=left, right=right, rows=rows, columns=columns):
            if z.device.type == "cpu":
                mask = torch.from_numpy(np.less_equal(z.numpy().view(limit.dtype), limit))
            else:
                mask = z.view(self.dtype) >= cut
            hit_rows, hit_columns = hits(mask, i, j)
            if len(hit_rows):
                yield hit_rows % n, hit_columns

    def _split(self, x: Floats) -> Tensor:
        rest = torch.from_numpy(np.ascontiguousarray(x)).to(self.device)
        parts = []
        for _ in range(_SPLITS[self.dtype]):
            parts.append(rest.to(self.dtype))
            rest = rest - parts[-1].double()
        return torch.stack(parts, 1)

    # ---- tiles
    # --------------------------------------------------------------------------------------------------------

    def products(
        self,
        *,
        left: Callable[[Tensor], Tensor] | None = None,
        right: Callable[[Tensor], Tensor] | None = None,
        rows: Places | None = None,
        columns: Places | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Tile by tile `(i, j, z)`: rows of `P`, rows of `Q`, the bits of their products `[len(i), len(j)]`.

        The next tile overwrites z.

        Args:
            left, right: Other matrices than `P[i]` and `Q[j]`.
            rows, columns: Of the similarity; rows come in all their signs.
        """
        n, m, device = self.similarity.n, self.similarity.m, self.device
        all_rows = torch.arange(len(self.P), device=device)
        if rows is not None:
            own = torch.from_numpy(rows).to(device)
            all_rows = torch.cat([own + variant * n for variant in range(self.similarity.n_signs)])
        all_columns = (torch.arange(m) if columns is None else torch.from_numpy(columns)).to(device)
        size = min(TILE[0], len(all_rows)) * min(TILE[1], len(all_columns))
        buffer = torch.empty(size, dtype=self.dtype, device=device)
        with exact_products(device):
            for start in range(0, len(all_columns), TILE[1]):
                j = all_columns[start : start + TILE[1]]
                q = right(j) if right is not None else self.Q[j]
                for begin in range(0, len(all_rows), TILE[0]):
                    i = all_rows[begin : begin + TILE[0]]
                    p = left(i) if left is not None else self.P[i]
                    z = torch.mm(p, q.T, out=buffer[: len(i) * len(j)].view(len(i), len(j)))
                    yield i, j, z.view(self._integers)
                    self.on_tile(len(i) * len(j) / (len(self.P) * m))


def hits(mask: Tensor, i: Tensor, j: Tensor) -> tuple[Places, Places]:
    """Rows and columns of the true entries of a tile."""
    flat = nonzero_flat(mask) if mask.device.type == "cpu" else mask.reshape(-1).nonzero().squeeze(1)
    row = torch.div(flat, len(j), rounding_mode="floor")
    return i[row].cpu().numpy(), j[flat - row * len(j)].cpu().numpy()


# ---- comparisons of bits
# ----------------------------------------------------------------------------------------------
#
# The bits of floats, read as integers, are in order for one sign, so one comparison of integers tells what reaches a
# cut (here bfloat16):
#
#     float                     -inf     -1.5     -0.0  |  +0.0     +1.5     +inf
#     bits                      FF80     BFC0     8000  |  0000     3FC0     7F80
#     signed, for cuts >= 0     -128   -16448   -32768  |     0    16320    32640      reach: integer >= that of the cut
#     unsigned, for cuts < 0   65408    49088    32768  |     0    16320    32640      reach: integer <= that of the cut


def bits_below(cuts: Tensor, dtype: torch.dtype) -> Tensor:
    """Bits of floats of `dtype` just under `cuts`, which are not negative; 0 for 0."""
    low = cuts.to(dtype)  # to the nearest, so perhaps up: one step back
    return (low.view(torch.int16 if dtype == torch.bfloat16 else torch.int32) - 1).clamp_min(0)


def reach(z: Tensor, cut: Tensor) -> Tensor:
    """Where bits reach the bits of a cut that is not negative."""
    if z.device.type != "cpu":
        return z >= cut
    mask = torch.empty(z.shape, dtype=torch.bool)
    np.greater_equal(z.numpy(), cut.numpy(), out=mask.numpy())  # 16-bit integers: several times faster than torch
    return mask


def unsigned_limit(cut: float, dtype: torch.dtype) -> np.uint16 | np.uint32:
    """The largest unsigned bits of what may reach a negative cut: those of a float of `dtype` at it or just under."""
    bits = int(torch.tensor(-cut, dtype=torch.float32).view(torch.int32)) + 1  # + 1: rounding may have gone up
    return np.uint16(0x8000 + (bits >> 16) + 1) if dtype == torch.bfloat16 else np.uint32(0x80000000 + bits)


class exact_products:
    """On a GPU, products of float32 in float32 and not in less; nothing elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.settings = torch.backends.cuda.matmul if device.type == "cuda" else None
        self.before = ""

    def __enter__(self) -> None:
        if self.settings is not None:
            self.before = self.settings.fp32_precision
            self.settings.fp32_precision = "ieee"

    def __exit__(self, *_: object) -> None:
        if self.settings is not None:
            self.settings.fp32_precision = self.before
