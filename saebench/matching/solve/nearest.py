"""The nearest latent of another SAE, many to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.matching.directions import same_width
from saebench.matching.solve.dense import DENSE_ALLOWED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def best_cosines(A: Any, B: Any, *, signed: bool = True, device: Any = None) -> tuple[Floats, Floats]:
    """The largest cosine of each row of `A [n, d]` with any of `B [m, d]`, `[n]`, and of each row of B with any of A, `[m]`.

    Exact in float64. Above 4,096 rows the maxima of low-precision products say which pairs can be the largest, and only those are computed.

    Raises:
        SuiteError: Widths differ, a value is not finite, or a side has no row.
    """
    import torch

    from saebench.matching.solve.screen import Screen, hits, reach
    from saebench.matching.solve.similarity import Similarity, as_rows

    place = device if device is not None else getattr(A, "device", "cpu")
    a, b = as_rows(A, "A", place), as_rows(B, "B", place)
    same_width(a, b)
    if not len(a) or not len(b):
        raise SuiteError(f"best cosines: got {len(a)} and {len(b)} rows; each side needs one at least")
    similarity = Similarity([(a, b)], signed=signed)
    n, m = similarity.n, similarity.m
    if max(n, m) <= DENSE_ALLOWED:
        c = similarity.dense()
        return c.max(1), c.max(0)
    screen = Screen(similarity)
    # any entry is a lower bound of the largest one; as integers, of floats that are not negative, the largest of a tile is
    tops = [torch.zeros(size, dtype=torch.float32, device=screen.device) for size in (n, m)]
    for i, j, z in screen.products():
        rows = i[0] % n  # tiles may span two signs of the rows: row by row then
        values = z.amax(1).view(screen.dtype).float()
        if int(i[-1]) % n - int(rows) == len(i) - 1:
            part = tops[0][int(rows) : int(rows) + len(i)]
            torch.maximum(part, values, out=part)
        else:
            tops[0].scatter_reduce_(0, i % n, values, "amax")
        part = tops[1][int(j[0]) : int(j[-1]) + 1]
        torch.maximum(part, z.amax(0).view(screen.dtype).float(), out=part)
    error = screen.error(np.zeros(1), np.zeros(1))
    share = 2.0**-7 if screen.dtype == torch.bfloat16 else 0.0  # the rounding of the product itself, of both
    cuts = [(top * (1 - share) - 2 * error).clamp_min(0).to(screen.dtype) for top in tops]
    # rounded down: one step below
    bits = [(cut.view(torch.int16 if screen.dtype == torch.bfloat16 else torch.int32) - 1).clamp_min(0) for cut in cuts]
    best = [np.full(n, -1.0), np.full(m, -1.0)]
    for i, j, z in screen.products():
        mask = reach(z, bits[0][i % n].unsqueeze(1))
        mask |= reach(z, bits[1][j].unsqueeze(0))
        found_rows, found_columns = hits(mask, i, j)
        found_rows = found_rows % n
        cosines = similarity.exact(found_rows, found_columns)
        np.maximum.at(best[0], found_rows, cosines)
        np.maximum.at(best[1], found_columns, cosines)
    for side, pointing in enumerate(similarity.nonzero()):
        zero = np.ones((n, m)[side], dtype=bool)
        zero[pointing] = False
        best[side][zero] = 0.0
        # where all products may be negative: looked at whole
        for latent in pointing[tops[side].cpu().numpy()[pointing] * (1 - share) <= 2.1 * error]:
            other = np.arange((m, n)[side])
            own = np.full(len(other), latent)
            best[side][latent] = similarity.exact(*((own, other) if side == 0 else (other, own))).max()
    return best[0], best[1]
