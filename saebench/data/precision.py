"""Storage precisions of activations."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench.api.errors import SuiteError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def rounded(x: Tensor, dtype: str) -> Tensor:
    """`x` in a storage precision, to the nearest value, ties to even.

    Raises:
        SuiteError: A value is too large for it.
    """
    if x.dtype == DTYPES[dtype]:
        return x
    cast = x.to(DTYPES[dtype])
    if not bool(torch.isfinite(cast).all()):
        raise SuiteError(
            f"an activation of {float(x.abs().max()):.4g} does not fit into {dtype} ({torch.finfo(cast.dtype).max:,.0f} at most). "
            "Write `activations: {dtype: bfloat16}`, which has float32's range, or `dtype: float32`."
        )
    return cast
