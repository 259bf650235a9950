"""Family `agreement`: does the training dataset matter more than the seed?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api import GroupMember, GroupMetric, MetricResult
from saebench.matching.agreement.pair import CORRECTED, jackknife
from saebench.metrics.accumulator import metric_value, nulls
from saebench.metrics.catalogue import ACROSS, AGREEMENT, STABILITY
from saebench_plugins.core_metrics.pairs import Pairs, comparable, pair_details, reason_of, value_of

DIFFERENCE = "dataset-over-seed"
_DETAILED = tuple(f"{id}{form}" for id in CORRECTED for form in ("", "-null", "-data-null", "-corrected"))
_METRICS = tuple(info for info in STABILITY if info.id in _DETAILED)


@dataclass(frozen=True)
class Mean:
    """A mean over the pairs of one kind, or None with a reason.

    Attributes:
        without: The same mean without each init seed in turn (None where no pair is left).
    """

    value: float | None
    without: tuple[float | None, ...]
    n: int
    reason: str | None = None

    @property
    def stderr(self) -> float | None:
        """Jackknife over init seeds; None under two seeds, or where leaving one out leaves no pair."""
        return error_of(self.without) if self.value is not None else None


class Agreement:
    """All pairs of members, by what the two differ in: the seed, the dataset, or both."""

    def measure(self, members: Sequence[GroupMember]) -> MetricResult:
        """All ids; null with a reason where there are not two datasets, or the members cannot be compared."""
        datasets = sorted({str(member.facts["dataset"]) for member in members})
        if len(datasets) < 2:
            return MetricResult(
                nulls(AGREEMENT, f"needs two training datasets, there is {', '.join(datasets) or 'none'}")
            )
        found = comparable(members)
        if isinstance(found, str):
            return MetricResult(nulls(AGREEMENT, found))
        seeds = [member.facts["init_seed"] for member in members]
        pairs = found.pairs()
        kinds = {pair: _kind(members[pair[0]], members[pair[1]]) for pair in pairs}
        means = {
            kind: {id: mean_of(id, {p: s for p, s in pairs.items() if kinds[p] == kind}, seeds) for id in _DETAILED}
            for kind in ACROSS
        }
        values = {}
        for info in AGREEMENT:
            if info.id == DIFFERENCE:
                mean = difference(means["seeds"]["sfr-alive"], means["datasets"]["sfr-alive"])
            else:
                id, kind = info.id.split("-across-")
                mean = means[kind][id]
            values[info.id] = metric_value(info.id, mean.value, mean.n, stderr=mean.stderr, reason=mean.reason)
        details = {
            "agreement": {kind: {id: _json(id, mean) for id, mean in of.items()} for kind, of in means.items()},
            "agreement-pairs": [
                {"kind": kinds[i, j]} | pair_details(members[i].label, members[j].label, scores, _METRICS, found.signed)
                for (i, j), scores in pairs.items()
            ],
        }
        return MetricResult(values, details)


def mean_of(id: str, pairs: Pairs, seeds: Sequence[Any]) -> Mean:
    """Mean over pairs of one kind, and without each init seed: every member of that seed goes, of whatever dataset."""
    distinct = list(dict.fromkeys(seeds))
    if not pairs:
        return Mean(None, (), 0, "no two members differ so")
    known = {pair: value for pair, scores in pairs.items() if (value := value_of(id, scores)) is not None}
    if len(known) < len(pairs):
        missing = next(reason_of(id, scores) for pair, scores in pairs.items() if pair not in known)
        return Mean(None, (), len(known), missing)
    without = tuple(
        _mean([value for (i, j), value in known.items() if left not in (seeds[i], seeds[j])]) for left in distinct
    )
    return Mean(_mean(list(known.values())), without, len(pairs))


def difference(first: Mean, second: Mean) -> Mean:
    """first - second, with what is left of it without each init seed."""
    n = first.n + second.n
    if first.value is None or second.value is None:
        return Mean(None, (), n, first.reason or second.reason)
    without = tuple(
        None if a is None or b is None else a - b for a, b in zip(first.without, second.without, strict=True)
    )
    return Mean(first.value - second.value, without, n)


def error_of(without: Sequence[float | None]) -> float | None:
    """Jackknife error from what is left without each seed."""
    known = [value for value in without if value is not None]
    return jackknife(known) if len(known) == len(without) >= 2 else None


def _kind(a: GroupMember, b: GroupMember) -> str:
    same_seed, same_dataset = (a.facts[key] == b.facts[key] for key in ("init_seed", "dataset"))
    return "seeds" if same_dataset else "datasets" if same_seed else "both"


def _json(id: str, mean: Mean) -> Mapping[str, Any]:
    # a chance level is simulated: it has no error over seeds
    stderr = None if id.endswith("-null") else mean.stderr
    return {"value": mean.value, "stderr": stderr, "n": mean.n} | ({"reason": mean.reason} if mean.reason else {})


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def make() -> GroupMetric:
    """See `GroupMetricSpec.make`."""
    return Agreement()
