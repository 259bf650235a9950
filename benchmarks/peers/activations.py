"""Activations that every contender gets: sparse features with Zipf frequencies, a mean, anisotropic noise.

Run as a program it writes one file; contenders read it, so that making it costs none of them memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ACTIVE = 24.0
"""Mean number of features in a vector."""
CHUNK = 1024


def make(n: int, d_in: int, seed: int = 0) -> NDArray[np.float32]:
    """`[n, d_in]`, scaled so that the mean squared norm is d_in.

    `x = sum of active unit features * exponential sizes + mean + noise`: 8 d_in features, the i-th active with
    probability proportional to 1 / (i + 10), at most one half; noise whose standard deviations fall as (i + 1)^-0.5
    along random orthogonal axes; a mean as
    long as a quarter of the features' part.
    """
    rng = np.random.default_rng(seed)
    n_features = 8 * d_in
    features = rng.standard_normal((n_features, d_in), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    frequency = 1.0 / (np.arange(n_features) + 10.0)
    frequency = np.minimum(0.5, ACTIVE * frequency / frequency.sum())
    axes = np.linalg.qr(rng.standard_normal((d_in, d_in)))[0].astype(np.float32)
    spectrum = (np.arange(d_in, dtype=np.float32) + 1.0) ** -0.5
    mean = rng.standard_normal(d_in).astype(np.float32)
    mean *= 0.25 * ACTIVE**0.5 / np.linalg.norm(mean)
    x = np.empty((n, d_in), dtype=np.float32)
    for start in range(0, n, CHUNK):
        rows = min(CHUNK, n - start)
        active = rng.random((rows, n_features)) < frequency
        sizes = rng.exponential(1.0, (rows, n_features)).astype(np.float32)
        noise = rng.standard_normal((rows, d_in), dtype=np.float32) * spectrum
        x[start : start + rows] = (active * sizes) @ features + noise @ axes.T + mean
    x *= np.float32(np.sqrt(d_in / np.square(x, dtype=np.float64).sum(1).mean()))
    return x


if __name__ == "__main__":
    path, n, d_in = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with path.open("wb") as file:
        np.save(file, make(n, d_in))
