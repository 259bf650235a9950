"""The direction that each latent reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def directions(sae: Any, side: str) -> Any | None:
    """Rows of a side, `decoder` or `encoder`, as the SAE holds them: its own method (`decoder_directions()`), else `W_dec`, `W_enc`."""
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
            f"{label}: {len(unfit)} of {len(matrix)} rows hold values that are not finite, first row {unfit[0]}; they have no direction"
        )
    return matrix


def _matrix(sae: Any, side: str) -> Floats | None:
    rows = directions(sae, side)
    return None if rows is None else as_matrix(rows, f"{side} of {type(sae).__name__}")
