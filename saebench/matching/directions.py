"""The direction that each latent reads and writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def decoder_directions(sae: Any) -> Floats | None:
    """`[d_sae, d_out]` float64: the SAE's own `decoder_directions()`, else `W_dec`; None where it has neither."""
    return _directions(sae, "decoder_directions", "W_dec")


def encoder_directions(sae: Any) -> Floats | None:
    """`[d_sae, d_in]` float64: the SAE's own `encoder_directions()`, else `W_enc`; None where it has neither."""
    return _directions(sae, "encoder_directions", "W_enc")


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


def _directions(sae: Any, method: str, parameter: str) -> Floats | None:
    own = getattr(sae, method, None)
    rows = own() if callable(own) else getattr(sae, parameter, None)
    return None if rows is None else as_matrix(rows, f"{type(sae).__name__}.{method if callable(own) else parameter}")
