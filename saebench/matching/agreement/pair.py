"""How far two SAEs of one site agree on their latents, beside what chance gives, and the mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.matching.agreement.chance import NullLevel, corrected, null_scores, null_size
from saebench.matching.agreement.cosines import THRESHOLD, Latents, compare, curve, n_shared, n_strict
from saebench.matching.agreement.data_chance import DataSample, data_null_scores, too_few
from saebench.matching.agreement.subspace import subspace_agreement
from saebench.matching.assignment import match
from saebench.matching.result import Matching

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NO_DATA = "the training data is not at hand"
CORRECTED = ("sfr", "sfr-alive", "strict-shared", "matched-cosine", "mmcs")
"""Scores that have a sampled null level and a form corrected by it."""


@dataclass(frozen=True, eq=False)
class PairScores:
    """Scores of one pair, and what curves and pictures show.

    Attributes:
        values: Score by metric id; None with a reason in `reasons`.
        null: The level that random dictionaries of these sizes reach, by the same ids (where it was asked for and there
            is one).
        data_null: The level that untrained samples of the training data reach, for the ids in `CORRECTED`.
        no_data_null: Why there is none, or None.
        corrected: (score - null) / (1 - null) for the ids in `CORRECTED`, null the larger of the two levels; None where
            the score is, or chance alone gives 1.
        curve, curve_alive, curve_null: Share of matched pairs over each threshold of `CURVE`.
        sizes, alive, coverage: Of both sides: latents, alive ones, share of the latents that are in a shared pair.
        width: d of the directions.
        matching: Of all decoder rows. `matching_alive`: of those alive on both sides, under the same indices.
        gap, proven: The largest relative gap of all matchings that the scores came from, and whether all were proven.
    """

    values: Mapping[str, float | None]
    reasons: Mapping[str, str]
    null: Mapping[str, NullLevel]
    data_null: Mapping[str, NullLevel]
    no_data_null: str | None
    corrected: Mapping[str, float | None]
    curve: Floats
    curve_alive: Floats | None
    curve_null: Floats | None
    sizes: tuple[int, int]
    width: int
    alive: tuple[int, int]
    coverage: tuple[float, float]
    matching: Matching
    matching_alive: Matching
    gap: float
    proven: bool


def pair_scores(
    a: Latents,
    b: Latents,
    *,
    signed: bool = True,
    threshold: float = THRESHOLD,
    null: bool = True,
    data: tuple[DataSample, DataSample] | str = NO_DATA,
    **solver: Any,
) -> PairScores:
    """All scores of two SAEs of one site.

    With M the decoder matching that maximises the sum of cosines, s = min(d_sae of a, d_sae of b), t the threshold
    (0.7): `sfr` = #{pairs of M with cos > t} / s (FaithfulSAE).
    `sfr-alive`: the same after each side's own dead latents are dropped and the rest matched anew, over the smaller
    alive count. `strict-shared` = #{latents that the decoder matching and the encoder matching pair alike, both cosines
    >= t} / s (Paulo and
        Belrose 2025). Where encoder and decoder are tied it is sfr (but for ties at t).
    `matched-cosine` = mean cos over M (PW-MCC of Song et al. 2025).
    `mmcs` = (mean_i max_j cos(a_i, b_j) + mean_j max_i cos(a_i, b_j)) / 2.
    `subspace-agreement`: `matching.subspace_agreement` over alive latents not in a pair of cosine > t.

    Args:
        a, b: Their directions.
        signed: False for latents whose sign is not identified: every cosine is its absolute value.
        threshold: Where a pair counts as shared.
        null: Sample the null levels (`matching.null_scores`).
        data: Samples of what each side learnt from, for the level of untrained dictionaries; or why there are none.
        solver: Further arguments of `matching.match`, for each matching.
    """
    n, m = len(a.decoder), len(b.decoder)
    smaller, width = min(n, m), int(a.decoder.shape[1])
    alive = a.alive, b.alive
    counts = int(alive[0].sum()), int(alive[1].sum())
    found = compare(a.decoder, b.decoder, *alive, signed=signed, **solver)
    used = [found.matching, found.alive]
    values: dict[str, float | None] = {
        "sfr": n_shared(found.matching, threshold) / smaller,
        "matched-cosine": found.matching.total / smaller,
        "mmcs": found.mmcs,
    }
    reasons: dict[str, str] = {}

    if a.dead is None or b.dead is None:
        reasons["sfr-alive"] = "it is not known which latents are dead"
    elif min(counts) == 0:
        reasons["sfr-alive"] = "one SAE has no latent that is alive"
    else:
        values["sfr-alive"] = n_shared(found.alive, threshold) / min(counts)

    tied = a.tied and b.tied
    if a.encoder is None or b.encoder is None:
        reasons["strict-shared"] = "the encoder directions are not known"
    else:
        encoder = found.matching if tied else match(a.encoder, b.encoder, signed=signed, **solver)
        used.append(encoder)
        values["strict-shared"] = n_strict(found.matching, encoder, n, threshold) / smaller

    shared = found.matching.cosines > threshold
    orphan_a, orphan_b = alive[0].copy(), alive[1].copy()
    orphan_a[found.matching.rows[shared]] = False
    orphan_b[found.matching.columns[shared]] = False
    subspace = subspace_agreement(a.decoder[orphan_a], b.decoder[orphan_b])
    values["subspace-agreement"] = subspace.value
    if subspace.reason:
        reasons["subspace-agreement"] = subspace.reason
    for id in reasons:
        values[id] = None

    levels: dict[str, NullLevel] = {}
    by_data: dict[str, NullLevel] = {}
    no_data, curve_null = data if isinstance(data, str) else too_few(*data, n, m), None
    supports = None if a.support is None or b.support is None else (a.support, b.support)
    options = {"signed": signed, "threshold": threshold, **solver}
    if null:
        untied = a.encoder is not None and b.encoder is not None and not tied
        chance = null_scores(n, m, width, tied=not untied, supports=supports, **options)
        levels = {id: level for id, level in chance.levels.items() if values[id] is not None}
        curve_null = np.array(chance.curve)
    if null and no_data is None and not isinstance(data, str):
        untrained = data_null_scores(*data, n, m, supports=supports, **options)
        by_data = {id: level for id, level in untrained.levels.items() if values[id] is not None}
    if null and values.get("sfr-alive") is not None:
        of_alive = None if supports is None else (supports[0][alive[0]], supports[1][alive[1]])
        sizes = counts if supports is not None or counts == (n, m) else (null_size(counts[0]), null_size(counts[1]))
        if counts != (n, m):
            chance = null_scores(*sizes, width, supports=of_alive, **options)
        levels["sfr-alive"] = chance.levels["sfr"]
        if by_data and not isinstance(data, str):
            by_data["sfr-alive"] = data_null_scores(*data, *sizes, supports=of_alive, **options).levels["sfr"]
    if null and subspace.null is not None:
        levels["subspace-agreement"] = subspace.null
    return PairScores(
        values=values,
        reasons=reasons,
        null=levels,
        data_null=by_data,
        no_data_null=no_data,
        corrected=_corrected(values, levels, by_data),
        curve=curve(found.matching, smaller),
        curve_alive=None if values["sfr-alive"] is None else curve(found.alive, min(counts)),
        curve_null=curve_null,
        sizes=(n, m),
        width=width,
        alive=counts,
        coverage=(int(shared.sum()) / n, int(shared.sum()) / m),
        matching=found.matching,
        matching_alive=found.alive,
        gap=float(max(matching.relative_gap for matching in used)),
        proven=all(bool(matching.proven) for matching in used),
    )


def over_pairs(
    items: Sequence[Latents], *, samples: Sequence[DataSample] | str = NO_DATA, signed: bool = True, **options: Any
) -> dict[tuple[int, int], PairScores]:
    """Scores of every pair of members, by their indices; `samples` of what each learnt from, or why there are none."""
    pairs = combinations(range(len(items)), 2)
    return {
        (i, j): pair_scores(
            items[i],
            items[j],
            signed=signed,
            data=samples if isinstance(samples, str) else (samples[i], samples[j]),
            **options,
        )
        for i, j in pairs
    }


def mean_over_pairs(scores: Mapping[tuple[int, int], float], n_members: int) -> tuple[float, float | None]:
    """Mean over pairs, and its standard error by leaving out one member at a time.

    Pairs that share a member are not independent, so their spread is no standard error. With theta_(-s) the mean over
    the pairs without member s: se^2 = (S - 1) / S * sum (theta_(-s) - mean)^2 (Arvesen 1969, for U-statistics). None
    under three members.
    """
    value = math.fsum(scores.values()) / len(scores)
    without = []
    for member in range(n_members):
        rest = [score for pair, score in scores.items() if member not in pair]
        if not rest:
            return value, None
        without.append(math.fsum(rest) / len(rest))
    return value, jackknife(without)


def jackknife(without: Sequence[float]) -> float:
    """Standard error from the values found without each of S members: sqrt((S - 1) / S * sum (x_s - mean)^2)."""
    mean = math.fsum(without) / len(without)
    return math.sqrt((len(without) - 1) / len(without) * math.fsum((x - mean) ** 2 for x in without))


def mean_curve(curves: Sequence[Floats]) -> list[float]:
    """Mean threshold curve of several pairs."""
    return [float(share) for share in np.mean(np.stack(list(curves)), axis=0)]


def _corrected(
    values: Mapping[str, float | None], levels: Mapping[str, NullLevel], by_data: Mapping[str, NullLevel]
) -> dict[str, float | None]:
    scores: dict[str, float | None] = {}
    for id in CORRECTED:
        value, known = values[id], [of[id].value for of in (levels, by_data) if id in of]
        scores[id] = None if value is None or not known else corrected(value, max(known))
    return scores
