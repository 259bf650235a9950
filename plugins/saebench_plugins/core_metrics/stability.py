"""Family `stability`: agreement of SAEs that differ in their init seed alone; mean over all pairs of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from saebench.api import GroupMember, GroupMetric, MetricResult, MetricValue, SaebenchError
from saebench.matching import decoder_directions
from saebench.matching.agreement.blocks import block_agreement, block_null
from saebench.matching.agreement.cosines import CURVE
from saebench.matching.agreement.pair import mean_curve, mean_over_pairs
from saebench.matching.agreement.reappearance import (
    DENSITY_EDGES,
    SHARE_EDGES,
    Reappearance,
    binned,
    counts_by_share,
    reappearances,
)
from saebench.matching.agreement.recapture import recapture
from saebench.metrics.accumulator import metric_value, nulls
from saebench.metrics.catalogue import STABILITY
from saebench_plugins.core_metrics import coactivation
from saebench_plugins.core_metrics.pairs import Comparable, Pairs, comparable, mean_value, null_details, pair_details

RECAPTURE = ("distinct-latents", "idealised-dictionary-size")
BLOCKS = "block-agreement"
DIRECTIONS = tuple(info for info in STABILITY if info.id not in (*coactivation.IDS, *RECAPTURE, BLOCKS))
"""Ids that are the mean of what pairs of decoders (and encoders) score."""


class Stability:
    """By direction, by activation and by block; who comes back; how many distinct latents there are."""

    def measure(self, members: Sequence[GroupMember]) -> MetricResult:
        """All ids; null with a reason where the members cannot be compared so."""
        if len(members) < 2:
            return MetricResult(nulls(STABILITY, f"needs at least two SAEs to compare, there is {len(members)}"))
        values, details = coactivation.by_activations(members)
        values[BLOCKS], blocks = _blocks(members)
        details.update(blocks)
        arrays: dict[str, Tensor] = {}
        found = comparable(members)
        if isinstance(found, str):
            values |= nulls((info for info in STABILITY if info.id not in values), found)
        else:
            by_direction, more, arrays = _by_direction(members, found)
            values |= by_direction
            details.update(more)
        return MetricResult({info.id: values[info.id] for info in STABILITY}, details, arrays)


def _by_direction(
    members: Sequence[GroupMember], found: Comparable
) -> tuple[dict[str, MetricValue], dict[str, Any], dict[str, Tensor]]:
    pairs = found.pairs()
    values = {info.id: mean_value(info.id, pairs, len(members)) for info in DIRECTIONS}
    seen = reappearances(pairs, found.latents)
    total = recapture({pair: scores.matching_alive for pair, scores in pairs.items()}, [item.alive for item in seen])
    if total.distinct:
        values["distinct-latents"] = metric_value("distinct-latents", total.distinct, sum(total.n_alive))
        values["idealised-dictionary-size"] = metric_value(
            "idealised-dictionary-size",
            total.estimate if total.unstable is None else None,
            total.distinct,
            stderr=total.stderr if total.unstable is None else None,
            reason=total.unstable,
        )
    else:
        values |= nulls((info for info in STABILITY if info.id in RECAPTURE), "no latent is alive")
    labels = [member.label for member in members]
    details = {
        "sfr-curve": _curves(pairs, len(members)),
        "stability-pairs": [
            pair_details(labels[i], labels[j], scores, DIRECTIONS, found.signed) for (i, j), scores in pairs.items()
        ],
        "stability-null": null_details(pairs),
        "stability-data-null": null_details(pairs, data=True),
        "reappearance": _reappearance(members, seen),
        "recapture": total.to_json(),
    }
    arrays = {f"reappearance/{label}": _float32(item.share) for label, item in zip(labels, seen, strict=True)}
    arrays |= {
        f"matched-cosine/{label}": _float32(item.matched_cosine) for label, item in zip(labels, seen, strict=True)
    }
    return values, details, arrays


def _curves(pairs: Pairs, n_members: int) -> dict[str, Any]:
    """`sfr-curve`: mean share over each threshold, chance beside it, and the jackknife of each point."""
    every = {pair: scores.curve for pair, scores in pairs.items()}
    alive = {pair: scores.curve_alive for pair, scores in pairs.items() if scores.curve_alive is not None}
    chance = [scores.curve_null for scores in pairs.values() if scores.curve_null is not None]
    known = len(alive) == len(pairs)

    def errors(curves: dict[tuple[int, int], Any]) -> list[float | None]:
        points = ({pair: float(curve[at]) for pair, curve in curves.items()} for at in range(len(CURVE)))
        return [mean_over_pairs(point, n_members)[1] for point in points]

    return {
        "thresholds": list(CURVE),
        "sfr": mean_curve(list(every.values())),
        "sfr-alive": mean_curve(list(alive.values())) if known else None,
        "sfr-null": mean_curve(chance),
        "stderr": {"sfr": errors(every), "sfr-alive": errors(alive) if known else None},
    }


def _reappearance(members: Sequence[GroupMember], seen: Sequence[Reappearance]) -> dict[str, Any]:
    others = len(members) - 1
    return {
        "seeds": len(members),
        "share": [times / others for times in range(len(members))],
        "n": counts_by_share(seen),
        "by_density": _by_array("density", DENSITY_EDGES, members, seen),
        "by_variance_share": _by_array("variance-share", SHARE_EDGES, members, seen),
    }


def _by_array(
    name: str, edges: Sequence[float], members: Sequence[GroupMember], seen: Sequence[Reappearance]
) -> dict[str, Any]:
    lacking = [member.label for member in members if name not in member.arrays]
    if lacking:
        return {"reason": f"the {name} of latents is not known for {', '.join(lacking)}"}
    return binned(seen, [member.arrays[name].double().cpu().numpy() for member in members], edges)


def _blocks(members: Sequence[GroupMember]) -> tuple[MetricValue, dict[str, Any]]:
    """`block-agreement` and its detail: pairs and the level that random blocks reach when matched."""
    if not all("grouped_latents" in member.tags for member in members):
        return metric_value(BLOCKS, None, 0, reason="the latents do not come in blocks"), {}
    sizes = {getattr(member.sae, "group_size", None) for member in members}
    (size, *_) = sizes
    if len(sizes) > 1 or not isinstance(size, int):
        return metric_value(BLOCKS, None, 0, reason="the members do not say one group_size"), {}
    rows = [decoder_directions(member.sae) for member in members]
    known = [matrix for matrix in rows if matrix is not None]
    if len(known) < len(rows):
        return metric_value(BLOCKS, None, 0, reason="the decoder directions are not known"), {}
    try:
        found = {
            (i, j): block_agreement(known[i], known[j], size) for i, j in combinations(range(len(known)), 2)
        }  # fmt: skip
    except SaebenchError as error:
        return metric_value(BLOCKS, None, 0, reason=str(error)), {}
    value, error_ = mean_over_pairs({pair: one.value for pair, one in found.items()}, len(members))
    null = block_null(len(known[0]), len(known[1]), known[0].shape[1], size)
    detail = {
        "group_size": size,
        "blocks": len(known[0]) // size,
        "null": null.to_json(),
        "pairs": [{"a": members[i].label, "b": members[j].label, "value": one.value} for (i, j), one in found.items()],
    }
    return metric_value(BLOCKS, value, len(found), stderr=error_), {"block-agreement": detail}


def _float32(values: Any) -> Tensor:
    return torch.from_numpy(values).float()


def make() -> GroupMetric:
    """See `GroupMetricSpec.make`."""
    return Stability()
