"""The nearest latent of another SAE, many to one.

Where the matrix of cosines is too large to hold, three passes find its maxima. For one row, with z the low-precision
products of `saebench.matching.solve.screen`, each off by E at most:

    1. top   = max_j z_j                  so the largest cosine is at least top - E
    2. every j with z_j >= top - 2 E      holds the largest cosine: for all others c_j <= z_j + E < top - E
    3. the largest exact cosine of those

A row whose top lies under 2 E may have no positive product, or only such as drown in the error: it is computed whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.matching.directions import same_width
from saebench.matching.solve.dense import DENSE_ALLOWED

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from saebench.matching.solve.screen import Screen
    from saebench.matching.solve.similarity import Similarity

    Floats = NDArray[np.float64]


def best_cosines(A: Any, B: Any, *, signed: bool = True, device: Any = None) -> tuple[Floats, Floats]:
    """The largest cosine of each row of `A [n, d]` with any of `B [m, d]`, `[n]`, and the other way round, `[m]`.

    Exact in float64. Above 4,096 rows the maxima of low-precision products say which pairs can be the largest, and only
    those are computed.

    Raises:
        SuiteError: Widths differ, a value is not finite, or a side has no row.
    """
    from saebench.matching.solve.screen import Screen
    from saebench.matching.solve.similarity import Similarity, as_rows

    place = device if device is not None else getattr(A, "device", "cpu")
    a, b = as_rows(A, "A", place), as_rows(B, "B", place)
    same_width(a, b)
    if not len(a) or not len(b):
        raise SuiteError(f"best cosines: got {len(a)} and {len(b)} rows; each side needs one at least")
    similarity = Similarity([(a, b)], signed=signed)
    if max(similarity.n, similarity.m) <= DENSE_ALLOWED:
        c = similarity.dense()
        return c.max(1), c.max(0)
    screen = Screen(similarity)
    return _screened(similarity, screen, _largest_products(similarity, screen))


def _largest_products(similarity: Similarity, screen: Screen) -> tuple[Tensor, Tensor]:
    """The largest product of each row `[n]` and column `[m]`; 0 where none is positive."""
    import torch

    n, m = similarity.n, similarity.m
    of_rows, of_columns = (torch.zeros(size, dtype=torch.float32, device=screen.device) for size in (n, m))
    for i, j, z in screen.products():
        in_rows, in_columns = (z.amax(axis).view(screen.dtype).float() for axis in (1, 0))
        own = slice(int(j[0]), int(j[-1]) + 1)
        torch.maximum(of_columns[own], in_columns, out=of_columns[own])
        first = int(i[0]) % n
        if int(i[-1]) % n - first == len(i) - 1:
            own = slice(first, first + len(i))
            torch.maximum(of_rows[own], in_rows, out=of_rows[own])
        else:  # the tile spans two signs of the rows
            of_rows.scatter_reduce_(0, i % n, in_rows, "amax")
    return of_rows, of_columns


def _screened(similarity: Similarity, screen: Screen, tops: tuple[Tensor, Tensor]) -> tuple[Floats, Floats]:
    """The largest exact cosine of each row and column, from the largest products."""
    from saebench.matching.solve.screen import bits_below, hits, reach

    n, m = similarity.n, similarity.m
    error = screen.error(np.zeros(1), np.zeros(1))
    kept = 1 - 2 * screen.last_rounding  # of two products: the top, and the one that is compared with it
    row_bits, column_bits = (bits_below((top * kept - 2 * error).clamp_min(0), screen.dtype) for top in tops)
    best = np.full(n, -1.0), np.full(m, -1.0)
    for i, j, z in screen.products():
        mask = reach(z, row_bits[i % n].unsqueeze(1))
        mask |= reach(z, column_bits[j].unsqueeze(0))
        rows, columns = hits(mask, i, j)
        rows %= n
        cosines = similarity.exact(rows, columns)
        np.maximum.at(best[0], rows, cosines)
        np.maximum.at(best[1], columns, cosines)
    for side, pointing in enumerate(similarity.nonzero()):
        zero = np.ones((n, m)[side], dtype=bool)
        zero[pointing] = False
        best[side][zero] = 0.0
        for latent in pointing[tops[side].cpu().numpy()[pointing] * kept <= 2.1 * error]:
            every = np.arange((m, n)[side])
            own = np.full(len(every), latent)
            best[side][latent] = similarity.exact(*((own, every) if side == 0 else (every, own))).max()
    return best
