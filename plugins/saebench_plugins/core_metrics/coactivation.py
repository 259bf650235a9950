"""Stability by when latents fire: correlation of codes on the held-out stream of the group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from saebench.api import GroupMember, MetricValue, SaebenchError, SuiteError
from saebench.matching.agreement.by_activation import (
    ActivationMatch,
    Firing,
    activation_match,
    block_norms,
    codes_matrix,
)
from saebench.matching.agreement.chance import corrected, level
from saebench.matching.agreement.pair import mean_over_pairs
from saebench.metrics.accumulator import metric_value, nulls
from saebench.metrics.catalogue import STABILITY
from saebench_plugins.core_metrics.pairs import is_signed

IDS = ("matched-correlation", "matched-correlation-null", "matched-correlation-corrected", "sfr-activation")
DRAWS = 3


def by_activations(members: Sequence[GroupMember]) -> tuple[dict[str, MetricValue], dict[str, Any]]:
    """Values of `IDS` and the detail `activation-match`; nulls with a reason where there are no codes."""
    if any(member.codes is None for member in members):
        return _without("there is no stream of codes for this group")
    pairs: dict[tuple[int, int], ActivationMatch] = {}
    chance: list[ActivationMatch] = []
    # latents inside a block may be negative and are not identified, but the norm of a block is
    signed = is_signed(members) or any("grouped_latents" in member.tags for member in members)
    number = len(members) * (len(members) - 1) // 2
    try:
        for i, j in combinations(range(len(members)), 2):
            # two members at a time: reading again is quick, holding all need not fit
            if j == i + 1:
                first = _firing(members[i])
            second = _firing(members[j])
            done = len(pairs)
            pairs[i, j] = activation_match(first, second, signed=signed)
            # the draws of the chance level are dealt out over the pairs, each with a shift of its own
            for draw in range(done, DRAWS, number):
                by = first.tokens * (draw + 1) // (DRAWS + 1)
                chance.append(activation_match(first, second.shifted(by), signed=signed))
    except SaebenchError as error:
        return _without(str(error))
    smaller = min(first.n, second.n)  # the members of a group have one config, so one size
    null = level([match.correlation for match in chance])
    scores = {pair: match.correlation for pair, match in pairs.items()}
    values = {
        "matched-correlation": _value("matched-correlation", scores, len(members)),
        "matched-correlation-null": metric_value("matched-correlation-null", null.value, len(chance)),
        "sfr-activation": _value("sfr-activation", {pair: m.shared for pair, m in pairs.items()}, len(members)),
    }
    freed = {pair: value for pair, score in scores.items() if (value := corrected(score, null.value)) is not None}
    values["matched-correlation-corrected"] = (
        _value("matched-correlation-corrected", freed, len(members))
        if freed
        else metric_value("matched-correlation-corrected", None, 0, reason="chance alone gives 1")
    )
    details = {
        "tokens": next(iter(pairs.values())).tokens,
        "null": null.to_json(),
        "null-shared": level([match.shared for match in chance], misses=len(chance) * smaller).to_json(),
        "floor": max(match.floor for match in pairs.values()),
        "bound": max(match.bound for match in pairs.values()),
        "pairs": [
            {
                "a": members[i].label,
                "b": members[j].label,
                "matched-correlation": match.correlation,
                "sfr-activation": match.shared,
                "silent": list(match.silent),
            }
            for (i, j), match in pairs.items()
        ],
    }
    return values, {"activation-match": details}


def _firing(member: GroupMember) -> Firing:
    codes = codes_matrix(member.codes() if member.codes is not None else ())
    if "grouped_latents" not in member.tags:
        return Firing.of(codes)
    size = getattr(member.sae, "group_size", None)
    if not isinstance(size, int):
        raise SuiteError(f"{member.label}: latents come in blocks, and the SAE does not say its group_size")
    return Firing.of(block_norms(codes, size))


def _value(id: str, scores: dict[tuple[int, int], float], n_members: int) -> MetricValue:
    value, error = mean_over_pairs(scores, n_members)
    return metric_value(id, value, len(scores), stderr=error)


def _without(reason: str) -> tuple[dict[str, MetricValue], dict[str, Any]]:
    return nulls((info for info in STABILITY if info.id in IDS), reason), {}
