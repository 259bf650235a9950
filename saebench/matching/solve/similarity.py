"""Cosines between two sets of latents, given out pair by pair or block by block and never as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saebench.api.errors import SuiteError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.int64]

_CHUNK_VALUES = 2_000_000
"""Values gathered at once for exact cosines: they stay in the cache."""


def as_rows(rows: Any, label: str, device: torch.device | str = "cpu") -> Tensor:
    """A tensor or array `[n, d]` as float32 or float64, in place where it is that already.

    16-bit floats become float32, integers float64.

    Raises:
        SuiteError: Not two-dimensional, or a value is not finite.
    """
    if isinstance(rows, Tensor):
        tensor = rows.detach()
    else:
        array = np.asarray(rows)
        if array.dtype.kind not in "fiub":
            raise SuiteError(f"{label}: got values of type {array.dtype}, expected real numbers")
        if array.dtype not in (np.float32, np.float16):
            array = array.astype(np.float64)  # native byte order, whatever it was
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if tensor.is_complex():
        raise SuiteError(f"{label}: got values of type {tensor.dtype}, expected real numbers")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor.double()
    if tensor.ndim != 2:
        raise SuiteError(
            f"{label}: got shape {list(tensor.shape)}, expected a matrix [latents, width] with a row a latent"
        )
    largest = tensor.abs().amax(1) if tensor.numel() else tensor.new_zeros(tensor.shape[0])
    unfit = torch.nonzero(~torch.isfinite(largest)).squeeze(1)  # amax passes a NaN on
    if unfit.numel():
        raise SuiteError(
            f"{label}: {unfit.numel()} of {len(tensor)} rows hold values that are not finite, first row "
            f"{int(unfit[0])}; "
            "they have no direction"
        )
    if tensor.dtype == torch.float64 and tensor.numel():
        # by a power of two, which changes no cosine: squares of very small and very large rows would vanish or overflow
        tensor = torch.ldexp(tensor, -torch.frexp(largest).exponent.unsqueeze(1))
    return tensor.to(device)


class Similarity:
    """`c_ij`: the mean over factors of the cosine of row i of A with row j of B, or of its absolute value.

    A factor is a pair of matrices `A [n, d]`, `B [m, d]` (decoders, or encoders). A zero row has cosine 0 with
    everything. Without sign, `|p . q|` is the largest of the signed products, so that what follows needs only `max over
    signs of (s p) . q`.

    Attributes:
        n, m: Sizes.
        n_signs: Combinations of signs: 1, or 2 to the number of factors.
    """

    def __init__(self, factors: Sequence[tuple[Tensor, Tensor]], *, signed: bool = True) -> None:
        self.factors = list(factors)
        self.signed = signed
        self.n, self.m = factors[0][0].shape[0], factors[0][1].shape[0]
        self.n_signs = 1 if signed else 2 ** len(factors)
        self._scales = [(_inverse_norms(a), _inverse_norms(b)) for a, b in factors]

    @property
    def device(self) -> torch.device:
        """Where the matrices are."""
        return self.factors[0][0].device

    @property
    def width(self) -> int:
        """Coordinates of all factors together."""
        return sum(a.shape[1] for a, _ in self.factors)

    def transposed(self) -> Similarity:
        """The same with A and B exchanged."""
        return Similarity([(b, a) for a, b in self.factors], signed=self.signed)

    def nonzero(self) -> tuple[Places, Places]:
        """Rows of A, and of B, that have a direction in some factor."""
        rows = torch.stack([a > 0 for a, _ in self._scales]).any(0)
        columns = torch.stack([b > 0 for _, b in self._scales]).any(0)
        return _numpy(torch.nonzero(rows).squeeze(1)), _numpy(torch.nonzero(columns).squeeze(1))

    def take(self, rows: Places, columns: Places) -> Similarity:
        """The part of these rows and columns."""
        device = self.device
        i, j = torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)
        return Similarity([(a[i], b[j]) for a, b in self.factors], signed=self.signed)

    def exact(self, rows: Places, columns: Places) -> Floats:
        """`c_ij` of pairs, float64 arithmetic throughout, in [-1, 1]."""
        out = np.empty(len(rows))
        step = max(1, _CHUNK_VALUES // max(1, self.width))
        device = self.device
        for start in range(0, len(rows), step):
            i = torch.from_numpy(rows[start : start + step]).to(device)
            j = torch.from_numpy(columns[start : start + step]).to(device)
            total = torch.zeros(len(i), dtype=torch.float64, device=device)
            for (a, b), (scale_a, scale_b) in zip(self.factors, self._scales, strict=True):
                dots = torch.linalg.vecdot(a[i].double(), b[j].double()) * scale_a[i] * scale_b[j]
                dots = dots.clamp(-1, 1)
                total += dots if self.signed else dots.abs()
            out[start : start + step] = _numpy(total / len(self.factors))
        return out

    def dense(self) -> Floats:
        """`[n, m]`, for small problems only."""
        total = torch.zeros(self.n, self.m, dtype=torch.float64, device=self.device)
        for (a, b), (scale_a, scale_b) in zip(self.factors, self._scales, strict=True):
            part = ((a.double() * scale_a[:, None]) @ (b.double() * scale_b[:, None]).T).clamp_(-1, 1)
            total += part if self.signed else part.abs_()
        dense: Floats = _numpy(total.div_(len(self.factors)))
        return dense

    def unit_rows(self, side: int, start: int, stop: int) -> Tensor:
        """`[stop - start, width]` float64: rows of A (side 0) or B (1) whose product is `c`, before signs."""
        parts = []
        for matrices, scales in zip(self.factors, self._scales, strict=True):
            parts.append(matrices[side][start:stop].double() * scales[side][start:stop, None])
        rows: Tensor = torch.cat(parts, 1) / float(len(self.factors)) ** 0.5
        return rows

    def sign(self, variant: int) -> Tensor:
        """`[width]` of +-1: bit f of `variant` turns factor f around."""
        parts = [
            torch.full((a.shape[1],), -1.0 if variant >> f & 1 else 1.0, dtype=torch.float64)
            for f, (a, _) in enumerate(self.factors)
        ]
        return torch.cat(parts).to(self.device)

    def rounding(self) -> float:
        """Bound on the error of one exact cosine: the roundings of a dot product, of two norms, of their use."""
        return (2 * max(a.shape[1] for a, _ in self.factors) + 10) * 2.0**-53


def _inverse_norms(matrix: Tensor) -> Tensor:
    norms = torch.linalg.vector_norm(matrix, dim=1, dtype=torch.float64)
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))


def _numpy(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()
