"""What matching gives by chance."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from saebench.matching.assignment import match


@lru_cache(maxsize=64)
def null_cosine(n: int, m: int, d: int, *, signed: bool = True) -> float:
    """Mean matched cosine of n with m independent random unit vectors in d dimensions.

    One draw from a fixed generator (its spread over draws is far under that of one pair over the root of the number of pairs), cached
    by size. High dictionaries in low dimensions match well by chance: read matched cosines against it.
    """
    generator = np.random.default_rng((n, m, d))
    # Gaussian rows point uniformly; `match` normalises them
    return float(
        match(generator.standard_normal((n, d)), generator.standard_normal((m, d)), signed=signed).cosines.mean()
    )
