"""Matching latents by when they fire: for SAEs whose directions cannot agree by construction.

Two SAEs encode the same tokens, and latents are matched by the correlation of their codes over all tokens. Co-firing
sums come from a sparse product, a block of latents at a time. An array of all correlations is made only where it has
`DENSE_PAIRS` entries or fewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array, vstack

from saebench.api.errors import SuiteError
from saebench.matching.agreement.cosines import THRESHOLD
from saebench.matching.assignment import match_cosines
from saebench.matching.solve.assign import cheapest
from saebench.matching.solve.dense import DENSE_ALLOWED
from saebench.matching.solve.edges import Edges, best_gain, prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saebench.api.codes import SparseCodes

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]
    Bools = NDArray[np.bool_]

DENSE_PAIRS = DENSE_ALLOWED**2
"""Of latents that vary. Up to so many pairs, however the two sides share them, every pair is weighed."""
FLOOR = 0.05
"""Above `DENSE_PAIRS`, correlations under this are left out of the matching; what that can cost is bounded."""
_CELLS = 1 << 24  # most entries of one block of the product


@dataclass(frozen=True, eq=False)
class ActivationMatch:
    """What `activation_match` found.

    Attributes:
        correlation: Sum of the matched correlations over the smaller number of latents, silent ones counted in it.
        shared: Share of the smaller number that is matched with a correlation over 0.7.
        rows, columns, correlations: The matched pairs of positive correlation (with `signed=False` its absolute value).
        floor: Correlations under it were left out of the matching (0: none).
        bound: Proven: no one-to-one matching has a `correlation` larger than this one's by more.
        tokens: Tokens of the stream.
        silent: Latents of each side whose code never varies; they match nothing.
    """

    correlation: float
    shared: float
    rows: Integers
    columns: Integers
    correlations: Floats
    floor: float
    bound: float
    tokens: int
    silent: tuple[int, int]


def codes_matrix(batches: Iterable[SparseCodes]) -> csr_array:
    """`[tokens, d_sae]` float64 of all batches of codes.

    Raises:
        SuiteError: There are none.
    """
    values, latents, lengths, d_sae = [], [], [], 0
    for codes in batches:
        codes, d_sae = codes.detach().nonzero(), codes.d_sae
        values.append(codes.values.double().cpu().numpy())
        latents.append(codes.latents.cpu().numpy().astype(np.int32))
        lengths.append(codes.offsets.diff().cpu().numpy())
    if not sum(len(batch) for batch in lengths):
        raise SuiteError("codes to match: the stream holds no tokens, and matching by activations needs them")
    ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return csr_array((np.concatenate(values), np.concatenate(latents), ends), shape=(len(ends) - 1, d_sae))


def block_norms(codes: csr_array, group_size: int) -> csr_array:
    """`[tokens, blocks]`: the norm of each block of `group_size` codes, which turning a block's basis leaves alone.

    Raises:
        SuiteError: The blocks do not fill the codes.
    """
    if group_size < 1 or codes.shape[1] % group_size:
        raise SuiteError(f"group_size: got {group_size}, which does not divide the {codes.shape[1]} latents")
    squares = codes.tocoo()
    blocks = csr_array(
        (squares.data**2, (squares.row, squares.col // group_size)),
        shape=(codes.shape[0], codes.shape[1] // group_size),
    )
    blocks.sum_duplicates()
    blocks.data = np.sqrt(blocks.data)
    return blocks


@dataclass(frozen=True, eq=False)
class Firing:
    """Codes of one SAE on a stream, made ready for products with those of another.

    Attributes:
        n: Latents, silent ones counted.
        alive: Those whose code varies; the others correlate with nothing.
        pull: `[alive]`: mean over standard deviation.
        by_token: `[tokens, alive]` codes over their standard deviation and the root of the number of tokens, so that
            the product of two sides is the first term of r. `by_latent`: the same, turned.
    """

    n: int
    alive: Integers
    pull: Floats
    by_token: csr_array
    by_latent: csr_array

    @classmethod
    def of(cls, codes: csr_array) -> Firing:
        """From `[tokens, d_sae]` codes (`codes_matrix`)."""
        tokens = codes.shape[0]
        mean = np.asarray(codes.sum(0)).ravel() / tokens
        second = np.asarray(codes.multiply(codes).sum(0)).ravel() / tokens
        variance = second - mean**2
        alive = np.flatnonzero(variance > 1e-12 * second).astype(np.int64)
        scale = 1 / np.sqrt(variance[alive])
        kept = codes[:, alive].tocsc()
        kept.data *= np.repeat(scale / np.sqrt(tokens), np.diff(kept.indptr))
        return cls(codes.shape[1], alive, mean[alive] * scale, csr_array(kept), csr_array(kept.T))

    def shifted(self, by: int) -> Firing:
        """The same with tokens turned round by `by`: every latent fires as before, but at other tokens.

        This is the chance level: it keeps how often and how strongly latents fire and how firing clusters in a text.
        """
        by %= self.tokens
        turned = csr_array(vstack([self.by_token[by:], self.by_token[:by]], format="csr"))
        return replace(self, by_token=turned, by_latent=csr_array(turned.T.tocsr()))

    @property
    def tokens(self) -> int:
        """Of the stream."""
        return int(self.by_token.shape[0])


def activation_match(
    a: Firing, b: Firing, *, signed: bool = True, floor: float = FLOOR, threshold: float = THRESHOLD
) -> ActivationMatch:
    """One-to-one matching of latents that maximises the sum of max(r, 0), r the Pearson correlation of their codes.

    r_ij = (mean_t a_ti b_tj - mu_i mu_j) / (sd_i sd_j) over all tokens t, zeros included. Latents whose code never
    varies have no correlation; they stay unmatched and count in the denominators, min(n, m).

    Up to `DENSE_PAIRS` pairs of latents that vary (4,096 x 4,096, or 1,024 x 16,384) every pair is weighed and the
    matching is exact. Above, pairs that never fire together are left out: their r is -mu_i mu_j / (sd_i sd_j), which
    for codes of one sign is at most 0 and so no loss; for signed latents |r| may be positive and goes into the bound.
    So do pairs under `floor`. The sparse assignment is solved exactly, each row with a private column of weight 0. Its
    dual prices u, v >= 0 bound every matching by sum u + sum v; raising u_i to the largest weight left out of row i (or
    v_j to that of column j) makes the prices valid for the left-out pairs too: `bound`.

    Args:
        a, b: Codes of the two on the same tokens in the same order.
        signed: False weighs |r|, for latents whose sign is not identified.
        floor: See above.
        threshold: Of `shared`.

    Raises:
        SuiteError: Different numbers of tokens.
    """
    if a.tokens != b.tokens:
        raise SuiteError(
            f"codes to match: {a.tokens} and {b.tokens} tokens; both SAEs must encode the same tokens in the same order"
        )
    smaller = min(a.n, b.n)
    if len(a.alive) * len(b.alive) <= DENSE_PAIRS:
        floor = 0.0
        rows, columns, weights, loss = _dense(a, b, signed)
    else:
        rows, columns, weights, loss = _sparse(a, b, signed, floor)
    return ActivationMatch(
        correlation=float(weights.sum()) / smaller,
        shared=int((weights > threshold).sum()) / smaller,
        rows=a.alive[rows],
        columns=b.alive[columns],
        correlations=weights,
        floor=floor,
        bound=float(loss) / smaller,
        tokens=a.tokens,
        silent=(a.n - len(a.alive), b.n - len(b.alive)),
    )


def _products(a: Firing, b: Firing) -> Iterator[tuple[int, csr_array]]:
    """First latent and `[block, m]` first term of r, a block of A at a time; only of pairs that fire together."""
    block = max(1, _CELLS // max(1, len(b.alive)))
    for start in range(0, len(a.alive), block):
        yield start, csr_array(a.by_latent[start : start + block] @ b.by_token)


def _dense(a: Firing, b: Firing, signed: bool) -> tuple[Integers, Integers, Floats, float]:
    weights = np.empty((len(a.alive), len(b.alive)))
    for start, product in _products(a, b):
        part = weights[start : start + product.shape[0]]
        part[:] = product.toarray() - np.outer(a.pull[start : start + len(part)], b.pull)
    weights = np.maximum(weights, 0) if signed else np.abs(weights)
    np.minimum(weights, 1, out=weights)
    if not weights.size:
        return _nothing()
    found = match_cosines(weights)
    kept = found.cosines > 0
    loss = found.relative_gap * abs(found.total) if found.total else 0.0
    return found.rows[kept], found.columns[kept], found.cosines[kept], loss


def _sparse(a: Firing, b: Firing, signed: bool, floor: float) -> tuple[Integers, Integers, Floats, float]:
    n, m = len(a.alive), len(b.alive)
    left_a, left_b = _apart(a.pull, b.pull, signed), _apart(b.pull, a.pull, signed)
    parts = []
    for start, product in _products(a, b):
        rows = start + _rows(product)
        columns = product.indices
        r = product.data - a.pull[rows] * b.pull[columns]
        r = np.minimum(np.maximum(r, 0) if signed else np.abs(r), 1)
        kept = r >= floor
        np.maximum.at(left_a, rows[~kept], r[~kept])
        np.maximum.at(left_b, columns[~kept], r[~kept])
        parts.append((rows[kept], columns[kept].astype(np.int64), r[kept]))
    rows, columns, r = (np.concatenate(part) for part in zip(*parts, strict=True))
    # each row has a private column m + i of weight 0, so an assignment of all rows exists: those that take it stay
    # unmatched
    own = np.arange(n)
    keys = np.concatenate([rows * (m + n) + columns, own * (m + n) + m + own])
    order = np.argsort(keys)
    edges = Edges(n, m + n, keys[order], np.concatenate([r, np.zeros(n)])[order])
    partner = cheapest(edges, 1 - edges.values)
    v = prices(edges, partner, np.zeros(m + n)).v
    v[m:] = 0
    u = best_gain(edges, v)  # valid whatever v is
    matched = np.flatnonzero(partner < m)
    values = edges.value(matched, partner[matched])
    best = min(np.maximum(u, left_a).sum() + v.sum(), u.sum() + np.maximum(v[:m], left_b).sum())
    return matched, partner[matched], values, max(0.0, float(best - values.sum()))


def _apart(own: Floats, other: Floats, signed: bool) -> Floats:
    """The largest weight of each latent with one that it never fires together with, -mu_i mu_j / (sd_i sd_j)."""
    if not signed:
        return np.asarray(np.abs(own) * np.abs(other).max(initial=0))
    return np.asarray(np.maximum(0, np.maximum(-own * other.max(initial=0), -own * other.min(initial=0))))


def _rows(matrix: csr_array) -> Integers:
    """`[nnz]`: the row of each entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))


def _nothing() -> tuple[Integers, Integers, Floats, float]:
    none = np.zeros(0, dtype=np.int64)
    return none, none, np.zeros(0), 0.0
