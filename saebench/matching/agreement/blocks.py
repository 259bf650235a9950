"""Agreement of SAEs whose latents come in blocks: subspaces are compared, not directions.

Inside a block (SASA's groups) the basis is not identified: turning the block's rows and its codes together changes
nothing. So single directions of two seeds cannot agree by construction, and blocks are compared by the principal angles
between their spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.matching.agreement.chance import NullLevel, level, n_draws
from saebench.matching.assignment import match_cosines
from saebench.matching.directions import as_matrix
from saebench.matching.result import Matching
from saebench.matching.solve.dense import DENSE_ALLOWED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BlockAgreement:
    """What `block_agreement` found.

    Attributes:
        value: Mean over matched blocks of the mean cos^2, with the chance of one random pair of blocks (r / d) taken
            out.
        matching: Of blocks; its `cosines` are the mean cos^2.
        overlap: Mean of those.
    """

    value: float
    overlap: float
    matching: Matching


def block_agreement(A: Any, B: Any, group_size: int) -> BlockAgreement:
    """One-to-one agreement of the blocks of `A [n, d]` and `B [m, d]`.

    Latents g r .. (g + 1) r - 1 are block g, r = `group_size`.
    For two blocks with principal angles theta_1 .. theta_r, s = (1 / r) sum cos^2 theta_i (Bjorck and Golub 1973; the
    mean squared cosine, tr(P Q) / r for their projectors P and Q); missing dimensions of a block count 0. Blocks are
    matched one to one so that the sum of s is largest; with S its mean over the smaller number of blocks the value is
    (S - r / d) / (1 - r / d): 1 where every block has its equal. r / d is what one random pair gives; the best matching
    of random blocks lies above it: see `block_null`.

    Raises:
        SuiteError: Latents that do not fill their blocks, blocks as wide as the space, or more than 4,096 blocks a
            side.
    """
    a, b = _bases(A, group_size), _bases(B, group_size)
    d = a.shape[2]
    if b.shape[2] != d:
        raise SuiteError(f"blocks to match: A has width {d}, B has {b.shape[2]}; both must come from one site")
    if group_size >= d:
        raise SuiteError(f"group_size: got {group_size} but the width is {d}: every block may be the whole space")
    if min(len(a), len(b)) > DENSE_ALLOWED:
        raise SuiteError(
            f"blocks to match: {len(a)} and {len(b)}; the most that are compared is {DENSE_ALLOWED} on one side"
        )
    flat = b.reshape(-1, d)
    overlaps = np.stack([np.square(block @ flat.T).reshape(group_size, len(b), group_size).sum((0, 2)) for block in a])
    matching = match_cosines(overlaps / group_size)
    mean, chance = float(matching.total / min(len(a), len(b))), group_size / d
    return BlockAgreement((mean - chance) / (1 - chance), mean, matching)


@lru_cache(maxsize=64)
def block_null(n: int, m: int, d: int, group_size: int) -> NullLevel:
    """`block_agreement` of random Gaussian rows of these sizes: mean over draws with its 95 % t-interval."""
    values = []
    for draw in range(n_draws(max(n, m))):
        rng = np.random.default_rng((n, m, d, group_size, draw))
        values.append(block_agreement(rng.standard_normal((n, d)), rng.standard_normal((m, d)), group_size).value)
    return level(values)


def _bases(rows: Any, group_size: int) -> Floats:
    """`[blocks, r, d]`: orthonormal rows that span each block, zero rows where it spans less."""
    matrix = as_matrix(rows, "directions")
    if group_size < 1 or len(matrix) % group_size:
        raise SuiteError(f"group_size: got {group_size}, which does not divide the {len(matrix)} latents")
    blocks = matrix.reshape(-1, group_size, matrix.shape[1])
    _, singular, basis = np.linalg.svd(blocks, full_matrices=False)
    # a block of more rows than dimensions has only so many singular vectors; what a rank lacks is zero
    spans = singular > singular[:, :1] * 1e-10
    found = np.where(spans[:, :, None], basis, 0.0)
    return np.pad(found, ((0, 0), (0, group_size - found.shape[1]), (0, 0)))
