"""What untrained samples of the data reach: dictionaries whose latents are activations of random training tokens.

Directions of real dictionaries crowd where activations vary, so two of them agree though neither learnt anything from
data. Two such samples often agree as well as two trained SAEs do: only what is over their level was learned.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.agreement.chance import Null, sampled, support_codes
from saebench.matching.agreement.cosines import THRESHOLD

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float32]

DRAWS = 5
LEAST_TOKENS, MOST_BYTES = 16_384, 256_000_000
"""A sample has so many tokens or more where the data has them; so many bytes or fewer, but for what a draw needs."""


@dataclass(frozen=True, eq=False)
class DataSample:
    """Activations of random training tokens of one site.

    Attributes:
        rows: `[N, d]` float32, their mean taken out: decoder rows are directions from a bias, and so are these.
        code: Digest of the rows, which names the level that they give.
    """

    rows: Floats
    code: str

    @classmethod
    def of(cls, x: NDArray[Any]) -> DataSample:
        """From activations `[N, d]`."""
        rows = (x - x.mean(0, dtype=np.float64)).astype(np.float32) if len(x) else x.astype(np.float32)
        return cls(rows, hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest())


def sample_size(n: int, m: int, d: int) -> int:
    """Tokens to ask for, so that draws of n and m of them hardly share one: all draws' where they fit, or one's."""
    return max(n + m, min(max(DRAWS * (n + m), LEAST_TOKENS), MOST_BYTES // (4 * d)))


def too_few(a: DataSample, b: DataSample, n: int, m: int) -> str | None:
    """Why untrained dictionaries of n and m latents cannot be drawn from the two samples; None where they can."""
    if a.code == b.code:
        need, there = n + m, len(a.rows)
    else:
        need, there = max(((n, len(a.rows)), (m, len(b.rows))), key=lambda side: side[0] - side[1])
    return None if need <= there else f"{need:,} training tokens are needed for it, there are {there:,}"


def data_null_scores(
    a: DataSample,
    b: DataSample,
    n: int,
    m: int,
    *,
    signed: bool = True,
    threshold: float = THRESHOLD,
    supports: tuple[Bools, Bools] | None = None,
    **solver: Any,
) -> Null:
    """Scores of dictionaries of n rows of one sample and m of another; of one sample, of disjoint parts.

    5 draws. Such a dictionary reads what it writes, so `strict-shared` asks of its encoder no more than of its decoder.
    Kept as `null_scores` keeps its levels.

    Args:
        a, b: Of the data that each side learnt from; one sample where they learnt from the same.
        n, m: Latents a side.
        signed: See `matching.match`.
        threshold: Of `sfr` and `strict-shared`.
        supports: `[n, d]` and `[m, d]` bool: rows are zero elsewhere, as those of the SAEs are.
        solver: See `null_scores`.

    Raises:
        ValueError: Too few tokens (`too_few`).
    """
    if reason := too_few(a, b, n, m):
        raise ValueError(reason)
    if supports is None and a.code == b.code:
        n, m = sorted((n, m))
    key = {
        "data": [a.code, b.code],
        "n": int(n),
        "m": int(m),
        "d": int(a.rows.shape[1]),
        "signed": signed,
        "threshold": float(threshold),
        "supports": support_codes(supports),
    }
    return sampled(key, partial(_drawn, a, b, n, m, supports), None, DRAWS, **solver)


def _drawn(
    a: DataSample, b: DataSample, n: int, m: int, supports: tuple[Bools, Bools] | None, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    first = rng.permutation(len(a.rows))
    second = first[n:] if a.code == b.code else rng.permutation(len(b.rows))
    left, right = a.rows[first[:n]], b.rows[second[:m]]
    return (left, right) if supports is None else (left * supports[0], right * supports[1])
