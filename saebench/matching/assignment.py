"""One-to-one matching of directions that maximises the sum of cosines (the Hungarian assignment)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from saebench.api.errors import SuiteError
from saebench.matching.directions import as_matrix, decoder_directions, encoder_directions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Which = Literal["decoder", "encoder", "both"]


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of min(n, m) pairs.

    Attributes:
        rows, columns: `[min(n, m)]` int64: row `rows[i]` of A goes with row `columns[i]` of B; `rows` increases.
        cosines: `[min(n, m)]` float64 cosine of each pair (with `signed=False` its absolute value).
        total: Their sum, float64: what the matching maximises.
        relative_gap: Upper bound on (best total - total) / |best total|.
        proven: True when the matching is certified optimal up to float64 rounding.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cosines: Floats
    total: float
    relative_gap: float = 0.0
    proven: bool = True


def cosine_matrix(A: Any, B: Any) -> Floats:
    """`[n, m]` float64 cosines of the rows of `A [n, d]` and `B [m, d]`, in [-1, 1]; 0 where a row is zero.

    Raises:
        SuiteError: Widths differ, or a value is not finite.
    """
    a, b = as_matrix(A, "A"), as_matrix(B, "B")
    if a.shape[1] != b.shape[1]:
        raise SuiteError(
            f"directions to match: A has width {a.shape[1]}, B has {b.shape[1]}; both must come from one site"
        )
    return np.asarray(np.clip(unit_rows(a) @ unit_rows(b).T, -1, 1))


def unit_rows(matrix: Floats) -> Floats:
    """Rows divided by their norms; zero rows stay zero."""
    # the largest entry first, so that very small and very large rows neither vanish nor overflow
    scale = np.abs(matrix).max(1, keepdims=True, initial=0)
    scaled = np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Floats = np.divide(scaled, norm, out=np.zeros_like(matrix), where=norm > 0)
    return unit


def match_cosines(cosines: Floats, *, signed: bool = True) -> Matching:
    """The best matching for a matrix of cosines `[n, m]`; see `match`."""
    similarity = cosines if signed else np.abs(cosines)
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    matched = similarity[rows, columns]
    return Matching(rows.astype(np.int64), columns.astype(np.int64), matched, float(matched.sum()))


def match(A: Any, B: Any, *, signed: bool = True) -> Matching:
    """Match the rows of `A [n, d]` with those of `B [m, d]` one to one so that the sum of cosines is largest.

    In float64, deterministic; sizes may differ: min(n, m) pairs. A zero row has cosine 0 with everything.

    Args:
        A, B: Tensors or arrays, any scale.
        signed: False matches on |cos|, for latents whose sign is not identified.

    Raises:
        SuiteError: Widths differ, or a value is not finite.
    """
    return match_cosines(cosine_matrix(A, B), signed=signed)


def match_saes(a: Any, b: Any, which: Which = "decoder", *, signed: bool = True) -> Matching:
    """Match the latents of two SAEs.

    Args:
        a, b: Modules with `decoder_directions()` / `encoder_directions()`, or `W_dec` / `W_enc` `[d_sae, d_in]`.
        which: `decoder`, `encoder`, or `both`: the mean of the two cosines is maximised and given.
        signed: See `match`. With False and `both`, the mean of the two absolute cosines.

    Raises:
        SuiteError: An SAE lacks the directions, or widths differ.
    """
    if which not in ("decoder", "encoder", "both"):
        raise SuiteError(f"which: got {which!r}, allowed are decoder, encoder, both")
    parts = []
    for side, directions in (("decoder", decoder_directions), ("encoder", encoder_directions)):
        if which in (side, "both"):
            A, B = directions(a), directions(b)
            if A is None or B is None:
                lacking = a if A is None else b
                raise SuiteError(
                    f"{type(lacking).__name__} has neither {side}_directions() nor W_{side[:3]}: its {side} cannot be matched"
                )
            cosines = cosine_matrix(A, B)
            parts.append(cosines if signed else np.abs(cosines))
    return match_cosines(parts[0] if len(parts) == 1 else (parts[0] + parts[1]) / 2)
