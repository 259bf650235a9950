"""Do two sets of directions span the same subspace, though no pair of them matches?

OUR RECONSTRUCTION. The idea that seeds may disagree on single latents while agreeing on the space these span (a pair of
dense latents turned inside its plane, a split feature) is in the literature; a formula for whole dictionaries is not.
With more latents than dimensions the full span is everything and agreement would be empty, so the spans of the
unmatched latents are compared, each cut to the leading directions that hold most of its energy, and the level that
random subspaces of that rank reach is taken out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.agreement.chance import NullLevel
from saebench.matching.directions import as_matrix, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ENERGY = 0.9


@dataclass(frozen=True)
class SubspaceAgreement:
    """What `subspace_agreement` found.

    Attributes:
        value: Chance-corrected agreement, or None with a `reason`.
        rank: Dimensions r of the two subspaces that were compared.
        null: Where independent, uniformly turned subspaces of that rank land: 0, with the range of 95 % of them
            (normal), in closed form.
    """

    value: float | None
    rank: int = 0
    null: NullLevel | None = None
    reason: str | None = None


def subspace_agreement(A: Any, B: Any, energy: float = ENERGY) -> SubspaceAgreement:
    """Chance-corrected agreement of the leading subspaces of `A [n, d]` and `B [m, d]`.

    Rows are normalised (zero rows dropped) and each side's right singular vectors taken; its rank is the fewest of them
    that hold `energy` of the sum of squared singular values; r is the smaller rank of the two. With theta_i the
    principal angles between the two r-dimensional leading subspaces, s = mean cos^2 theta_i has expectation r / d for
    random subspaces, and the value is (s - r / d) / (1 - r / d): 1 for equal subspaces, 0 on average by chance, at
    least -r / (d - r).

    The null is exact: for P, Q the projectors of two independent uniformly distributed r-dimensional subspaces, E
    tr(PQ) = r^2 / d and Var tr(PQ) = 2 r^2 (d - r)^2 / (d^2 (d - 1) (d + 2)) (second moments of the orthogonal group).
    It is the null of independent random dictionaries, whatever their spectra; not of dictionaries that share nothing
    but the covariance of the activations they saw.
    """
    a, b = _directions(A), _directions(B)
    if min(len(a), len(b)) < 2:
        return SubspaceAgreement(
            None, reason=f"needs two unmatched latents a side to span a subspace, there are {len(a)} and {len(b)}"
        )
    (basis_a, rank_a), (basis_b, rank_b) = _leading(a, energy), _leading(b, energy)
    r, d = min(rank_a, rank_b), a.shape[1]
    if r == d:
        return SubspaceAgreement(None, r, reason=f"the unmatched latents of both sides fill all {d} dimensions")
    overlap = float(np.square(basis_a[:r] @ basis_b[:r].T).sum()) / r
    half = 1.96 * math.sqrt(2 / ((d - 1) * (d + 2)))  # sd of tr(PQ) / r is sqrt(2 / ((d - 1)(d + 2))) (1 - r / d)
    null = NullLevel(0.0, max(-r / (d - r), -half), min(1.0, half), 0, half / 1.96)
    return SubspaceAgreement((overlap - r / d) / (1 - r / d), r, null)


def _directions(rows: Any) -> Floats:
    unit = unit_rows(as_matrix(rows, "directions"))
    return np.asarray(unit[np.any(unit != 0, axis=1)])


def _leading(rows: Floats, energy: float) -> tuple[Floats, int]:
    """Right singular vectors (rows, strongest first) and how many of them hold `energy`."""
    if len(rows) > rows.shape[1]:
        rows = np.asarray(np.linalg.qr(rows, mode="r"))  # the same right singular vectors, d rows instead of n
    _, singular, basis = np.linalg.svd(rows, full_matrices=False)
    held = np.cumsum(singular**2) / np.sum(singular**2)
    return basis, int(np.searchsorted(held, energy - 1e-12)) + 1
