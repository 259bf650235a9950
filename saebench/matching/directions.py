"""The direction that each latent reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def directions(sae: Any, side: str) -> Any | None:
    """Rows of a side, `decoder` or `encoder`, as the SAE holds them.

    From its own method (`decoder_directions()`), else `W_dec`, `W_enc`; None where it has neither.
    """
    own = getattr(sae, f"{side}_directions", None)
    return own() if callable(own) else getattr(sae, f"W_{side[:3]}", None)


def decoder_directions(sae: Any) -> Floats | None:
    """`[d_sae, d_out]` float64: the SAE's own `decoder_directions()`, else `W_dec`; None where it has neither."""
    return _matrix(sae, "decoder")


def encoder_directions(sae: Any) -> Floats | None:
    """`[d_sae, d_in]` float64: the SAE's own `encoder_directions()`, else `W_enc`; None where it has neither."""
    return _matrix(sae, "encoder")


def as_matrix(rows: Any, label: str) -> Floats:
    """A tensor or array as a float64 matrix.

    Raises:
        SuiteError: Not two-dimensional, or a value is not finite.
    """
    if hasattr(rows, "detach"):
        rows = rows.detach().double().cpu().numpy()
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2:
        raise SuiteError(
            f"{label}: got shape {list(matrix.shape)}, expected a matrix [latents, width] with a row a latent"
        )
    unfit = np.flatnonzero(~np.isfinite(matrix).all(1))
    if len(unfit):
        raise SuiteError(
            f"{label}: {len(unfit)} of {len(matrix)} rows hold values that are not finite, first row {unfit[0]}; they "
            "have no direction"
        )
    return matrix


def cosine_matrix(A: Any, B: Any) -> Floats:
    """`[n, m]` float64 cosines of the rows of `A [n, d]` and `B [m, d]`, in [-1, 1]; 0 where a row is zero.

    Raises:
        SuiteError: Widths differ, or a value is not finite.
    """
    a, b = as_matrix(A, "A"), as_matrix(B, "B")
    same_width(a, b)
    return np.asarray(np.clip(unit_rows(a) @ unit_rows(b).T, -1, 1))


def unit_rows(matrix: Floats) -> Floats:
    """Rows divided by their norms; zero rows stay zero."""
    # the largest entry first, so that very small and very large rows neither vanish nor overflow
    scale = np.abs(matrix).max(1, keepdims=True, initial=0)
    scaled = np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Floats = np.divide(scaled, norm, out=np.zeros_like(matrix), where=norm > 0)
    return unit


def same_width(A: Any, B: Any) -> None:
    """Nothing, where the rows of two matrices are equally long.

    Raises:
        SuiteError: They are not.
    """
    if A.shape[1] != B.shape[1]:
        raise SuiteError(
            f"directions to match: A has width {A.shape[1]}, B has {B.shape[1]}; both must come from one site"
        )


def _matrix(sae: Any, side: str) -> Floats | None:
    rows = directions(sae, side)
    return None if rows is None else as_matrix(rows, f"{side} of {type(sae).__name__}")
