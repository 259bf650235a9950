"""Pairs of SAEs of one group: who can be compared, and what a pair says in the record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api import GroupMember, MetricInfo, MetricValue
from saebench.matching.agreement.chance import NullLevel
from saebench.matching.agreement.cosines import Latents
from saebench.matching.agreement.data_chance import DataSample, sample_size
from saebench.matching.agreement.pair import CORRECTED, NO_DATA, PairScores, mean_over_pairs, over_pairs
from saebench.matching.directions import as_matrix, directions
from saebench.metrics.accumulator import metric_value

Pairs = Mapping[tuple[int, int], PairScores]

DATA_NULL = "-data-null"

GROUPED = (
    "the latents come in blocks, and single directions inside a block are not identified; "
    "block-agreement compares the blocks"
)
SUPPORTS = (
    "the members have different frozen supports (mask seeds), "
    "so their directions could not be close however alike they work"
)


@dataclass(frozen=True)
class Comparable:
    """Members whose directions can be compared.

    Attributes:
        latents: Their directions.
        signed: False where the sign of a latent is not identified.
        device: Where products are computed: where the first SAE is.
        samples: Activations that each member learnt from, or why there are none.
    """

    latents: list[Latents]
    signed: bool
    device: Any = None
    samples: Sequence[DataSample] | str = NO_DATA

    def pairs(self) -> Pairs:
        """Scores of every pair of members, by their indices."""
        return over_pairs(self.latents, samples=self.samples, signed=self.signed, device=self.device)


def is_signed(members: Sequence[GroupMember]) -> bool:
    """False where a member's latents may be negative: flipping code and direction together changes nothing."""
    return not any("signed_latents" in member.tags for member in members)


def comparable(members: Sequence[GroupMember]) -> Comparable | str:
    """Their directions, or why these cannot be compared."""
    if any("grouped_latents" in member.tags for member in members):
        return GROUPED
    supports = [_support(member) for member in members]
    if any(support != supports[0] for support in supports):
        return SUPPORTS
    latents = []
    for member in members:
        decoder, encoder = _rows(member.sae, "decoder"), _rows(member.sae, "encoder")
        if decoder is None:
            return f"the decoder directions of {member.label} are not known"
        dead = None if member.dead is None else member.dead.detach().cpu().numpy().astype(bool)
        # zeros of a frozen support are shared before anything is learned: chance must have them too
        support = as_matrix(decoder, "decoder") != 0 if supports[0] is not None else None
        latents.append(Latents(decoder, encoder, dead, support))
    device = getattr(latents[0].decoder, "device", None)
    return Comparable(latents, is_signed(members), device, _samples(members, latents))


def _samples(members: Sequence[GroupMember], latents: Sequence[Latents]) -> Sequence[DataSample] | str:
    """One sample for each training dataset; those of members that learnt from the same are one."""
    largest, width = max(len(item.decoder) for item in latents), int(latents[0].decoder.shape[1])
    found: dict[Any, DataSample] = {}
    of = [(member.facts.get("dataset"), member.facts.get("data_seed")) for member in members]
    for data, member in zip(of, members, strict=True):
        if data not in found:
            if member.training is None:
                return NO_DATA
            found[data] = DataSample.of(member.training(sample_size(largest, largest, width)).numpy())
    return [found[data] for data in of]


def value_of(id: str, scores: PairScores) -> float | None:
    """A score of a pair by metric id: the score, a chance level (`-null`, `-data-null`) or its `-corrected` form."""
    if id.endswith(DATA_NULL):
        level = scores.data_null.get(id.removesuffix(DATA_NULL))
        return None if level is None else level.value
    if id.endswith("-null"):
        level = scores.null.get(id.removesuffix("-null"))
        return None if level is None else level.value
    if id.endswith("-corrected"):
        return scores.corrected[id.removesuffix("-corrected")]
    return scores.values[id]


def reason_of(id: str, scores: PairScores) -> str:
    """Why a pair has no such score."""
    if id.endswith(DATA_NULL):
        base = id.removesuffix(DATA_NULL)
        return scores.reasons.get(base) or scores.no_data_null or NO_DATA
    base = id.removesuffix("-null").removesuffix("-corrected")
    return scores.reasons.get(base, "chance alone reaches 1 at these sizes, so nothing is left to correct")


def mean_value(id: str, pairs: Pairs, n_members: int) -> MetricValue:
    """Mean over all pairs with its jackknife over members; null where one pair has none."""
    known = {pair: value for pair, scores in pairs.items() if (value := value_of(id, scores)) is not None}
    if len(known) < len(pairs):
        missing = next(reason_of(id, scores) for pair, scores in pairs.items() if pair not in known)
        which = "" if not known else f" (in {len(pairs) - len(known)} of {len(pairs)} pairs)"
        return metric_value(id, None, len(known), reason=missing + which)
    value, error = mean_over_pairs(known, n_members)
    # a chance level is simulated, not measured on these seeds: it has no error over them
    return metric_value(id, value, len(pairs), stderr=None if id.endswith("-null") else error)


def null_details(pairs: Pairs, *, data: bool = False) -> dict[str, Any]:
    """`stability-null` and `stability-data-null`: level, interval and sizes by id.

    They are means over the pairs where their alive counts differ.
    """
    details = {}
    for id in CORRECTED if data else (*CORRECTED, "subspace-agreement"):
        levels = [(scores.data_null if data else scores.null, scores) for scores in pairs.values()]
        found = [(of[id], scores) for of, scores in levels if id in of]
        if found:
            sizes = [scores.alive if id == "sfr-alive" else scores.sizes for _, scores in found]
            details[id] = {
                **mean_level([level for level, _ in found]).to_json(),
                "n": _size([n for n, _ in sizes]),
                "m": _size([m for _, m in sizes]),
                "d": found[0][1].width,
            }
    return details


def mean_level(levels: Sequence[NullLevel]) -> NullLevel:
    """Mean of null levels of like sizes, and of their intervals: these are not narrowed, as one size is one sample."""
    return NullLevel(
        _mean([level.value for level in levels]),
        _mean([level.low for level in levels]),
        _mean([level.high for level in levels]),
        levels[0].draws,
        _mean([level.sd for level in levels]),
    )


def pair_details(a: str, b: str, scores: PairScores, metrics: Sequence[MetricInfo], signed: bool) -> dict[str, Any]:
    """One pair by itself; `gap` is None where nothing could be proven."""
    return {
        "a": a,
        "b": b,
        "signed": signed,
        "d_sae": list(scores.sizes),
        "alive": list(scores.alive),
        "coverage": list(scores.coverage),
        "values": {info.id: value_of(info.id, scores) for info in metrics},
        "gap": scores.gap if math.isfinite(scores.gap) else None,
        "proven": scores.proven,
    }


def _rows(sae: Any, side: str) -> Any:
    """As the SAE holds them: at its precision and on its device, which large dictionaries need."""
    rows: Any = directions(sae, side)
    return rows.detach() if hasattr(rows, "detach") else rows


def _support(member: GroupMember) -> str | None:
    digest = getattr(member.sae, "support_digest", None)
    return digest() if callable(digest) else None


def _size(counts: Sequence[int]) -> int | float:
    """The count where all are alike, else their mean."""
    return counts[0] if len(set(counts)) == 1 else _mean([float(count) for count in counts])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
