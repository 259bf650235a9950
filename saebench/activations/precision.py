"""Storage precisions of activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
            f"an activation of {float(x.abs().max()):.4g} does not fit into {dtype} "
            f"({torch.finfo(cast.dtype).max:,.0f} at most). "
            "Write `activations: {dtype: bfloat16}`, which has float32's range, or `dtype: float32`."
        )
    return cast


UNDER_RANGE, LOST_VARIANCE = 0.01, 1e-3
"""Shares of the values, and of the variance, from which on a person is told what a storage precision loses."""


def rounding(x: Tensor, dtype: str) -> dict[str, Any] | None:
    """What a storage precision loses of rows `x [n, d]`, for the record; None for float32, which loses nothing.

    `under_range`: share of the values other than 0 that lie under its normal range, where digits are lost.
    `lost_variance`: squared rounding errors over the variance, the FVU of an SAE that is exact.
    """
    if dtype == "float32":
        return None
    x = x.double()
    smallest = torch.finfo(DTYPES[dtype]).smallest_normal
    there = x[x != 0].abs()
    variance = float((x - x.mean(0)).square().sum())
    error = float((rounded(x, dtype).double() - x).square().sum())
    return {
        "dtype": dtype,
        "rows": len(x),
        "under_range": round(float((there < smallest).double().mean()), 6) if len(there) else 0.0,
        "lost_variance": float(f"{error / variance:.6g}") if variance > 0 else 0.0,
    }


def rounding_remark(lost: Mapping[str, Any] | None, what: str) -> str | None:
    """A line for a person, where it is worth one."""
    if lost is None or (lost["under_range"] <= UNDER_RANGE and lost["lost_variance"] <= LOST_VARIANCE):
        return None
    return (
        f"{what}: as {lost['dtype']} they lose {lost['lost_variance']:.2g} of their variance, and "
        f"{lost['under_range']:.1%} of the values lie under its normal range "
        f"(of the first {lost['rows']:,} rows). Write `activations: {{dtype: float32}}`, or scale the data."
    )
