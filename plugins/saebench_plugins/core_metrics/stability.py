"""Family `stability`: agreement of SAEs that differ in their init seed alone; mean over all pairs of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saebench.api import GroupMember, GroupMetric, MetricResult, MetricValue
from saebench.matching import decoder_directions, encoder_directions
from saebench.matching.stability import CURVE, Latents, PairScores, mean_curve, mean_over_pairs, over_pairs
from saebench.metrics.infos import STABILITY, metric_value, nulls


class Stability:
    """Details `sfr-curve` (share of matched pairs over each threshold) and `stability-pairs` (each pair by itself)."""

    def measure(self, members: Sequence[GroupMember]) -> MetricResult:
        """All ids; null with a reason where the members cannot be compared by cosine."""
        if len(members) < 2:
            return MetricResult(nulls(STABILITY, f"needs at least two SAEs to compare, there is {len(members)}"))
        supports = [_support(member) for member in members]
        if any(support != supports[0] for support in supports):
            reason = "the members have different frozen supports (mask seeds), so their directions could not be close however alike they work"
            return MetricResult(nulls(STABILITY, reason))
        latents = []
        for member in members:
            decoder = decoder_directions(member.sae)
            if decoder is None:
                return MetricResult(nulls(STABILITY, f"the decoder directions of {member.label} are not known"))
            dead = None if member.dead is None else member.dead.detach().cpu().numpy().astype(bool)
            latents.append(Latents(decoder, encoder_directions(member.sae), dead))
        signed = not any("signed_latents" in member.tags for member in members)
        pairs = over_pairs(latents, signed=signed)
        values = {info.id: _mean(info.id, pairs, len(members)) for info in STABILITY}
        return MetricResult(values, _details(pairs, [member.label for member in members], signed))


def _mean(id: str, pairs: dict[tuple[int, int], PairScores], n_members: int) -> MetricValue:
    known = {pair: score for pair, scores in pairs.items() if (score := scores.values[id]) is not None}
    if len(known) < len(pairs):
        missing = next(scores.reasons[id] for scores in pairs.values() if id in scores.reasons)
        which = "" if not known else f" (in {len(pairs) - len(known)} of {len(pairs)} pairs)"
        return metric_value(id, None, len(known), reason=missing + which)
    value, error = mean_over_pairs(known, n_members)
    # the null level is one simulated number, the same for every pair of sizes: it has no error over seeds
    return metric_value(id, value, len(pairs), stderr=None if id == "matched-cosine-null" else error)


def _details(pairs: dict[tuple[int, int], PairScores], labels: list[str], signed: bool) -> dict[str, Any]:
    alive = [scores.curve_alive for scores in pairs.values() if scores.curve_alive is not None]
    return {
        "sfr-curve": {
            "thresholds": list(CURVE),
            "sfr": mean_curve([scores.curve for scores in pairs.values()]),
            "sfr-alive": mean_curve(alive) if len(alive) == len(pairs) else None,
        },
        "stability-pairs": [
            {
                "a": labels[i],
                "b": labels[j],
                "signed": signed,
                "d_sae": list(scores.sizes),
                "alive": list(scores.alive),
                "coverage": list(scores.coverage),
                "values": scores.values,
            }
            for (i, j), scores in pairs.items()
        ],
    }


def _support(member: GroupMember) -> str | None:
    digest = getattr(member.sae, "support_digest", None)
    return digest() if callable(digest) else None


def make() -> GroupMetric:
    """See `GroupMetricSpec.make`."""
    return Stability()
