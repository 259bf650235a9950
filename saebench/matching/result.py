"""What matching gives: the pairs, and the certificate that no matching is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PROVEN_GAP = 1e-6
SMALLEST_COSINE = 1e-6
"""Where the mean cosine of a matching is smaller than this, the relative gap is a share of this instead."""


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of min(n, m) pairs, and what proves how good it is.

    The certificate: `row_prices[i] + column_prices[j] >= cos_ij` for all pairs, and where sizes differ no price of the
    larger side is negative. So no matching has a larger sum than all prices together (linear programming duality);
    `relative_gap` says how far `total` is from that, rounding included.

    Attributes:
        rows, columns: `[min(n, m)]` int64: row `rows[i]` of A goes with row `columns[i]` of B; `rows` increases.
        cosines: `[min(n, m)]` float64 cosine of each pair (with `signed=False` its absolute value).
        total: Their sum, float64: what the matching maximises.
        relative_gap: (best total - total) / |best total| is proven to be no larger (the size of the total taken as 1e-6
            a pair at least).
        proven: `relative_gap <= 1e-6`. Only then call it exact.
        row_prices, column_prices: `[n]`, `[m]` float64.
        facts: How it was found: method, solver, rounds, candidates, passes over all pairs, and `stopped`: the limit
            that ended it, or None.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cosines: Floats
    total: float
    relative_gap: float
    proven: bool
    row_prices: Floats
    column_prices: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)


def finished(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    cosines: Floats,
    row_prices: Floats,
    column_prices: Floats,
    turned: bool,
    rounding: float,
    facts: Mapping[str, Any],
) -> Matching:
    """A `Matching` with its proven gap; `turned` where A and B were exchanged to solve it."""
    if turned:
        order = np.argsort(columns)
        rows, columns, cosines = columns[order], rows[order], cosines[order]
        row_prices, column_prices = column_prices, row_prices
    total = float(cosines.sum())
    bound = float(row_prices.sum() + column_prices.sum())
    # every cosine and every price carries the rounding of a cosine, every sum that of its terms
    terms = len(row_prices) + len(column_prices)
    size = float(np.abs(row_prices).sum() + np.abs(column_prices).sum() + np.abs(cosines).sum())
    gap = max(0.0, bound - total) + 2 * len(rows) * rounding + 64 * 2.0**-53 * max(1.0, math.log2(terms + 1)) * size
    # the best total lies between total and bound, so its size may be as small as the smaller of them, or 0 between them
    best = bound if total > 0 else min(abs(total), abs(bound)) if bound < 0 else 0.0
    relative = float(gap / max(best, SMALLEST_COSINE * len(rows))) if gap else 0.0
    return Matching(
        rows=rows.astype(np.int64),
        columns=columns.astype(np.int64),
        cosines=cosines,
        total=total,
        relative_gap=relative,
        proven=bool(relative <= PROVEN_GAP),
        row_prices=row_prices,
        column_prices=column_prices,
        facts=facts,
    )
