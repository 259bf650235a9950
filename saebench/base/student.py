"""Student's t, the same to the last digit with every scipy."""

from __future__ import annotations

import math

from scipy.special import betaincinv

CONFIDENCE = 0.95


def t_quantile(df: float, confidence: float = CONFIDENCE) -> float:
    """Two-sided quantile of Student's t with `df` degrees of freedom: 95 %, or another confidence.

    By the incomplete beta function (Abramowitz and Stegun 26.7.1). Before scipy 1.17 `stdtrit` was right to ten digits
    only, and what a page prints must not depend on the version.
    """
    x = float(betaincinv(df / 2, 0.5, 1 - confidence))
    return math.sqrt(df * (1 - x) / x)
