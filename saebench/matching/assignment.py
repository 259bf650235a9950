"""One-to-one matching of directions that maximises the sum of cosines (the Hungarian assignment), with a certificate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saebench.api.errors import SuiteError
from saebench.matching.directions import as_matrix, directions
from saebench.matching.solve.dense import solve_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Which = Literal["decoder", "encoder", "both"]
Method = Literal["auto", "dense", "sparse"]
SolverName = Literal["auto", "scipy", "ortools"]

PROVEN_GAP = 1e-6
DENSE_UP_TO = 1024
"""Of the smaller side: from here on the sparse method is quicker than SciPy's dense one (docs/performance.md)."""
DENSE_ALLOWED = 4096
"""No matrix of all cosines is made where a side is larger."""
CROWDED_WIDTH = 16
"""In fewer dimensions all rows are near one another, and no few candidates can be told from the rest: dense, where that is allowed."""
SMALLEST_COSINE = 1e-6
"""Where the mean cosine of a matching is smaller than this, the relative gap is a share of this instead."""


@dataclass(frozen=True, eq=False)
class Matching:
    """A one-to-one matching of min(n, m) pairs, and what proves how good it is.

    The certificate: `row_prices[i] + column_prices[j] >= cos_ij` for all pairs, and where sizes differ no price of the larger side is
    negative. So no matching has a larger sum than all prices together (linear programming duality); `relative_gap` says how far `total`
    is from that, rounding included.

    Attributes:
        rows, columns: `[min(n, m)]` int64: row `rows[i]` of A goes with row `columns[i]` of B; `rows` increases.
        cosines: `[min(n, m)]` float64 cosine of each pair (with `signed=False` its absolute value).
        total: Their sum, float64: what the matching maximises.
        relative_gap: (best total - total) / |best total| is proven to be no larger (the size of the total taken as 1e-6 a pair at least).
        proven: `relative_gap <= 1e-6`. Only then call it exact.
        row_prices, column_prices: `[n]`, `[m]` float64.
        facts: How it was found: method, solver, rounds, candidates, passes over all pairs, and `stopped`: the limit that ended it, or None.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    cosines: Floats
    total: float
    relative_gap: float
    proven: bool
    row_prices: Floats
    column_prices: Floats
    facts: Mapping[str, Any] = field(default_factory=dict)


def match(
    A: Any,
    B: Any,
    *,
    signed: bool = True,
    time_limit_s: float | None = None,
    memory_limit_bytes: int | None = None,
    device: Any = None,
    method: Method = "auto",
    solver: SolverName = "auto",
    progress: bool = False,
) -> Matching:
    """Match the rows of `A [n, d]` with those of `B [m, d]` one to one so that the sum of cosines is largest.

    Exact, and proven so, at any size that fits: no n x m array is made where a side is over 4,096. Deterministic for one device and number
    of threads; which of several equally good matchings is taken is not fixed across them. Cosines are float64 whatever the input is.

    Args:
        A, B: Tensors or arrays of any scale, floating or integer. A zero row has cosine 0 with everything.
        signed: False matches on |cos|, for latents whose sign is not identified.
        time_limit_s: Stop after about so long, with the best matching so far and the gap that is proven for it. A limit of the sparse
            method: the dense one (up to 1,024 latents, and where it takes over up to 4,096) ends in a second or two.
        memory_limit_bytes: The same for memory beyond that of A and B; `auto` then takes the dense method only where it fits.
        device: Where products are computed; default: where A is.
        method: `dense` holds the whole matrix (both sides to 4,096), `sparse` never does; `auto` takes what is quicker.
        solver: Of the first sparse assignment: SciPy's, or OR-tools' where the extra `[matching]` is installed (equal sizes only);
            `auto` is SciPy's, which on prices from our auction is as quick (docs/performance.md).
        progress: Show a progress bar on standard error.

    Raises:
        SuiteError: Widths differ, a value is not finite, or an argument is not allowed.
        MachineError: OR-tools is asked for, would be used, and is not installed.
    """
    return match_factors(
        [(A, B)],
        signed=signed,
        time_limit_s=time_limit_s,
        memory_limit_bytes=memory_limit_bytes,
        device=device,
        method=method,
        solver=solver,
        progress=progress,
    )


def match_saes(a: Any, b: Any, which: Which = "decoder", **options: Any) -> Matching:
    """Match the latents of two SAEs.

    Args:
        a, b: Modules with `decoder_directions()` / `encoder_directions()`, or `W_dec` / `W_enc` `[d_sae, d_in]`.
        which: `decoder`, `encoder`, or `both`: the mean of the two cosines is maximised and given (of their absolute values with
            `signed=False`).
        **options: As `match`.

    Raises:
        SuiteError: An SAE lacks the directions, or as `match`.
    """
    if which not in ("decoder", "encoder", "both"):
        raise SuiteError(f"which: got {which!r}, allowed are decoder, encoder, both")
    factors = []
    for side in ("decoder", "encoder"):
        if which in (side, "both"):
            A, B = directions(a, side), directions(b, side)
            if A is None or B is None:
                lacking = a if A is None else b
                raise SuiteError(
                    f"{type(lacking).__name__} has neither {side}_directions() nor W_{side[:3]}: its {side} cannot be matched"
                )
            factors.append((A, B))
    return match_factors(factors, **options)


def match_factors(
    factors: Sequence[tuple[Any, Any]],
    *,
    signed: bool = True,
    time_limit_s: float | None = None,
    memory_limit_bytes: int | None = None,
    device: Any = None,
    method: Method = "auto",
    solver: SolverName = "auto",
    progress: bool = False,
) -> Matching:
    """As `match`, on the mean over several pairs of matrices (decoders and encoders) of the cosine in each."""
    from saebench.matching.solve.similarity import Similarity, as_rows

    for name, value, allowed in (
        ("method", method, ("auto", "dense", "sparse")),
        ("solver", solver, ("auto", "scipy", "ortools")),
    ):
        if value not in allowed:
            raise SuiteError(f"{name}: got {value!r}, allowed are {', '.join(allowed)}")
    for name, limit in (("time_limit_s", time_limit_s), ("memory_limit_bytes", memory_limit_bytes)):
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise SuiteError(f"{name}: got {limit!r}, allowed is any number over 0, or None for no limit")
    tensors = []
    for A, B in factors:
        place = device if device is not None else getattr(A, "device", "cpu")
        tensors.append((as_rows(A, "A", place), as_rows(B, "B", place)))
        if tensors[-1][0].shape[1] != tensors[-1][1].shape[1]:
            raise SuiteError(_widths(tensors[-1][0].shape[1], tensors[-1][1].shape[1]))
    for side, label in enumerate("AB"):
        sizes = {len(pair[side]) for pair in tensors}
        if len(sizes) > 1:
            raise SuiteError(
                f"directions to match: the matrices of {label} have {' and '.join(map(str, sorted(sizes)))} rows; they must have a row a latent"
            )
    similarity = Similarity(tensors, signed=signed)
    n, m = similarity.n, similarity.m
    if not n or not m:
        return match_cosines(np.zeros((n, m)))
    if method == "dense" and max(n, m) > DENSE_ALLOWED:
        raise SuiteError(
            f"method: 'dense' holds all {n:,} x {m:,} cosines and is allowed up to {DENSE_ALLOWED:,}. Use 'sparse' or 'auto'."
        )
    may_be_dense = method == "auto" and max(n, m) <= DENSE_ALLOWED and 32 * n * m <= (memory_limit_bytes or math.inf)
    if method == "dense" or (may_be_dense and (min(n, m) <= DENSE_UP_TO or similarity.width < CROWDED_WIDTH)):
        return match_cosines(similarity.dense(), _rounding=similarity.rounding())
    from saebench.matching.solve.sparse import match_sparse

    found = match_sparse(
        similarity,
        solver=solver,
        time_limit_s=time_limit_s,
        memory_limit_bytes=memory_limit_bytes,
        progress=progress,
        may_stall=may_be_dense,
    )
    if found.facts["stopped"] == "stalled":
        return match_cosines(similarity.dense(), _rounding=similarity.rounding())
    return found


def match_cosines(cosines: Floats, *, signed: bool = True, _rounding: float = 0.0) -> Matching:
    """The best matching for a matrix of cosines `[n, m]` that is there already; see `match`."""
    c = np.asarray(cosines if signed else np.abs(cosines), dtype=np.float64)
    if c.ndim != 2 or not np.isfinite(c).all():
        raise SuiteError(f"cosines to match: got shape {list(c.shape)}; allowed is a matrix of finite numbers")
    turned = c.shape[0] > c.shape[1]
    column_of, u, v = solve_dense(c.T if turned else c)
    matched = np.arange(len(column_of))
    own = (c.T if turned else c)[matched, column_of]
    return finished(
        matched, column_of, own, u, v, turned, _rounding, {"method": "dense", "solver": "scipy", "stopped": None}
    )


def finished(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    cosines: Floats,
    row_prices: Floats,
    column_prices: Floats,
    turned: bool,
    rounding: float,
    facts: Mapping[str, Any],
) -> Matching:
    """A `Matching` with its proven gap; `turned` where A and B were exchanged to solve it."""
    if turned:
        order = np.argsort(columns)
        rows, columns, cosines = columns[order], rows[order], cosines[order]
        row_prices, column_prices = column_prices, row_prices
    total = float(cosines.sum())
    bound = float(row_prices.sum() + column_prices.sum())
    # every cosine and every price carries the rounding of a cosine, every sum that of its terms
    terms = len(row_prices) + len(column_prices)
    size = float(np.abs(row_prices).sum() + np.abs(column_prices).sum() + np.abs(cosines).sum())
    gap = max(0.0, bound - total) + 2 * len(rows) * rounding + 64 * 2.0**-53 * max(1.0, math.log2(terms + 1)) * size
    # the best total lies between total and bound, so its size may be as small as the smaller of them, or 0 between them
    best = bound if total > 0 else min(abs(total), abs(bound)) if bound < 0 else 0.0
    relative = float(gap / max(best, SMALLEST_COSINE * len(rows))) if gap else 0.0
    return Matching(
        rows=rows.astype(np.int64),
        columns=columns.astype(np.int64),
        cosines=cosines,
        total=total,
        relative_gap=relative,
        proven=bool(relative <= PROVEN_GAP),
        row_prices=row_prices,
        column_prices=column_prices,
        facts=facts,
    )


def cosine_matrix(A: Any, B: Any) -> Floats:
    """`[n, m]` float64 cosines of the rows of `A [n, d]` and `B [m, d]`, in [-1, 1]; 0 where a row is zero.

    Raises:
        SuiteError: Widths differ, or a value is not finite.
    """
    a, b = as_matrix(A, "A"), as_matrix(B, "B")
    if a.shape[1] != b.shape[1]:
        raise SuiteError(_widths(a.shape[1], b.shape[1]))
    return np.asarray(np.clip(unit_rows(a) @ unit_rows(b).T, -1, 1))


def unit_rows(matrix: Floats) -> Floats:
    """Rows divided by their norms; zero rows stay zero."""
    # the largest entry first, so that very small and very large rows neither vanish nor overflow
    scale = np.abs(matrix).max(1, keepdims=True, initial=0)
    scaled = np.divide(matrix, scale, out=np.zeros_like(matrix), where=scale > 0)
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: Floats = np.divide(scaled, norm, out=np.zeros_like(matrix), where=norm > 0)
    return unit


def _widths(a: int, b: int) -> str:
    return f"directions to match: A has width {a}, B has {b}; both must come from one site"
