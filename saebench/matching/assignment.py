"""One-to-one matching that maximises the sum of cosines (the Hungarian assignment), with a certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from saebench.api.errors import SuiteError
from saebench.matching.directions import directions, same_width
from saebench.matching.result import Matching, finished
from saebench.matching.solve.dense import DENSE_ALLOWED, solve_dense

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Which = Literal["decoder", "encoder", "both"]
Method = Literal["auto", "dense", "sparse"]
SolverName = Literal["auto", "scipy", "ortools"]

DENSE_UP_TO = 1024
"""Of the smaller side: from here on the sparse method is quicker than SciPy's dense one (docs/performance.md)."""
CROWDED_WIDTH = 16
"""In fewer dimensions all rows are near one another, and no few candidates can be told from the rest: dense, where that
is allowed."""


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

    Exact, and proven so, at any size that fits: no n x m array is made where a side is over 4,096. Deterministic for
    one device and number of threads; which of several equally good matchings is taken is not fixed across them. Cosines
    are float64 whatever the input is.

    Args:
        A, B: Tensors or arrays of any scale, floating or integer. A zero row has cosine 0 with everything.
        signed: False matches on |cos|, for latents whose sign is not identified.
        time_limit_s: Stop after about so long, with the best matching so far and the gap that is proven for it. A limit
            of the sparse method: the dense one (up to 1,024 latents, and where it takes over up to 4,096) ends in a
            second or two.
        memory_limit_bytes: The same for memory beyond that of A and B; `auto` then takes the dense method only where it
            fits.
        device: Where products are computed; default: where A is.
        method: `dense` holds the whole matrix (both sides to 4,096), `sparse` never does; `auto` takes what is quicker.
        solver: Of the first sparse assignment: SciPy's, or OR-tools' where the extra `[matching]` is installed (equal
            sizes only); `auto` is SciPy's, which on prices from our auction is as quick (docs/performance.md).
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
        which: `decoder`, `encoder`, or `both`: the mean of the two cosines is maximised and given (of their absolute
            values with `signed=False`).
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
                    f"{type(lacking).__name__} has neither {side}_directions() nor W_{side[:3]}: its {side} cannot be "
                    "matched"
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
        same_width(*tensors[-1])
    for side, label in enumerate("AB"):
        sizes = {len(pair[side]) for pair in tensors}
        if len(sizes) > 1:
            raise SuiteError(
                f"directions to match: the matrices of {label} have {' and '.join(map(str, sorted(sizes)))} rows; they "
                "must have a row a latent"
            )
    similarity = Similarity(tensors, signed=signed)
    n, m = similarity.n, similarity.m
    if not n or not m:
        return match_cosines(np.zeros((n, m)))
    if method == "dense" and max(n, m) > DENSE_ALLOWED:
        raise SuiteError(
            f"method: 'dense' holds all {n:,} x {m:,} cosines and is allowed up to {DENSE_ALLOWED:,}. Use 'sparse' or "
            "'auto'."
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
