"""`diff --tolerant`: are two folders one result, up to what another machine changes?

What was decided before training (configs, digests, seeds, tokens, status) is equal or a difference. What training
computes may move within `tolerance`. What only tells how it was computed, or draws a picture of the same codes, is not
compared.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.leaderboard.read.differences import Difference, Pair, corpora, in_order, read_pairs, unlike_identities
from saebench.leaderboard.read.merge import ABSENT, Keys, dotted, unequal
from saebench.leaderboard.read.records import CellRecord, Record
from saebench.leaderboard.read.tolerance import tolerances


@dataclass(frozen=True)
class Moved:
    """A value that is not the same on both sides.

    Attributes:
        where: The record.
        key: Dotted key inside the facts.
        kind: What it is: a metric id, or another name in the table of tolerances.
        a, b: Both values.
        allowed: How far apart they may be.
    """

    where: str
    key: str
    kind: str
    a: float
    b: float
    allowed: float

    @property
    def apart(self) -> float:
        """The difference; infinite where one of both is not finite."""
        apart = abs(self.a - self.b)
        return math.inf if math.isnan(apart) else apart

    @property
    def share(self) -> float:
        """The difference over what is allowed; over 1 is outside."""
        return self.apart / self.allowed if self.allowed and math.isfinite(self.apart) else math.inf


@dataclass(frozen=True)
class Comparison:
    """Two folders under tolerances.

    Attributes:
        differences: Of what must be equal.
        moved: Values that differ, the furthest first; those with a `share` over 1 are outside.
        n_values: Metric values that were compared.
        ways: How the two were made, where that differs: what (`back end`), a, b.
        resampled: Computed datasets (`_generated`) that are not equal bit for bit.
    """

    differences: Sequence[Difference]
    moved: Sequence[Moved]
    n_values: int
    ways: Sequence[tuple[str, str, str]]
    resampled: Sequence[str]

    @property
    def outside(self) -> list[Moved]:
        """Values further apart than is allowed."""
        return [value for value in self.moved if value.share > 1]

    @property
    def within(self) -> bool:
        """Whether the two are one result."""
        return not self.differences and not self.outside


def diff_tolerant(a: Path, b: Path) -> Comparison:
    """Compares the facts of two folders that hold records/ (and groups/) under `tolerances`.

    A metric that the table does not know (of another plugin) may move by its seed noise (`seed_noise`, the smaller of
    both folders: what went wrong in one must not widen what is allowed); where there are no seeds, by twice its
    standard error, again the smaller; without one, not at all.

    Raises:
        SuiteError: As `diff`.
    """
    pairs = read_pairs(a, b)
    samples = _generated(pairs)
    left, right = (seed_noise(filter(None, side)) for side in zip(*((pair.a, pair.b) for pair in pairs), strict=True))
    noise = {id: min(left[id], right[id]) for id in left.keys() & right.keys()}
    differences, moved, resampled = [], [], set()
    for item in corpora(pairs):
        name = item.where.rpartition(" (")[0]
        if name in samples:
            resampled.add(name)
        else:
            differences.append(item)
    for pair in pairs:
        differences += unlike_identities(pair)
        for found in _unequal(pair, noise, samples):
            if isinstance(found, Moved):
                moved.append(found)
            else:
                differences.append(found)
    return Comparison(
        in_order(differences),
        sorted(moved, key=lambda value: (-value.share, value.where, value.key)),
        sum(len(pair.a.facts["metrics"]) for pair in pairs if pair.a is not None and pair.b is not None),
        _ways_of(pairs),
        sorted(resampled),
    )


def seed_noise(records: Iterable[Record], *, relative: bool = False) -> dict[str, float]:
    """What another init seed changes, by kind: the largest difference between two seeds of one contender.

    Args:
        records: Of one run; cells that trained and were scored are used. Groups have no seeds.
        relative: As a share of the largest of the contender's values.
    """
    values: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for record in records:
        if isinstance(record, CellRecord) and record.ok and not record.facts["control"]:
            names = (record.facts[key] for key in ("suite", "entry", "point", "data_seed"))
            contender = (*names, record.place, record.variant)
            for keys, value in _numbers(record.facts):
                if (kind := _kind(keys, record.facts)) is not None:
                    values[(kind, keys, *contender)].append(value)
    noise: dict[str, float] = {}
    for (kind, *_), found in values.items():
        if len(found) > 1:
            size = max(map(abs, found)) or 1.0 if relative else 1.0
            noise[kind] = max(noise.get(kind, 0.0), (max(found) - min(found)) / size)
    return noise


def _numbers(value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, float]]:
    if isinstance(value, Mapping | list):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _numbers(inner, (*keys, key))
    elif _is_number(value):
        yield keys, float(value)


def ways(a: Path, b: Path) -> list[tuple[str, str, str]]:
    """How the records of two folders were made, where that differs: what (`back end`), and what each side used.

    Raises:
        SuiteError: As `diff`.
    """
    return _ways_of(read_pairs(a, b))


def _ways_of(pairs: Iterable[Pair]) -> list[tuple[str, str, str]]:
    found = []
    for what, way in _WAYS.items():
        a, b = (
            sorted({str(used) for pair in pairs if (side := getattr(pair, name)) and (used := way(side)) is not None})
            for name in ("a", "b")
        )
        if a and b and a != b:
            found.append((what, ", ".join(a), ", ".join(b)))
    return found


def _backend(record: Record) -> Any:
    """Of a record from before `measured` said it, that of training."""
    training = record.facts.get("training") or {}
    return (record.record.get("measured") or {}).get("backend") or (training.get("numerics") or {}).get("backend")


def _measured(*keys: str) -> Callable[[Record], Any]:
    def found(record: Record) -> Any:
        value: Any = record.record.get("measured") or {}
        for key in keys:
            value = (value or {}).get(key)
        return value

    return found


_WAYS: Mapping[str, Callable[[Record], Any]] = {
    "device": _measured("host", "device"),
    "back end": _backend,
    "threads": _measured("threads"),
    "processor": _measured("host", "cpu"),
    "instructions": _measured("host", "cpu_path"),
    "torch": _measured("versions", "torch"),
}


def _generated(pairs: Iterable[Pair]) -> frozenset[str]:
    """Names of datasets that are computed (a model's samples, synthetic vectors): their bits follow the machine."""
    sides = (side for pair in pairs for side in (pair.a, pair.b) if isinstance(side, CellRecord))
    datasets = (side.facts["dataset"] for side in sides)
    return frozenset(str(dataset["name"]) for dataset in datasets if dataset.get("kind") in ("generated", "synthetic"))


def _unequal(pair: Pair, noise: Mapping[str, float], samples: Collection[str]) -> Iterator[Difference | Moved]:
    if pair.a is None or pair.b is None:
        return
    a, b = pair.a.facts, pair.b.facts
    for keys, left, right in unequal(a, b):
        if _tells_how(keys, left, right) or _of_samples(keys, a, samples):
            continue
        kind = _kind(keys, a)
        if kind is None or not (_is_number(left) and _is_number(right)):
            yield Difference("differs", pair.where, dotted(keys), left, right)
            continue
        known = tolerances().get(kind)
        if known is not None:
            dtype = ((a.get("model") or {}).get("load") or {}).get("dtype", "float32")
            allowed = known.allowed(left, right, a.get("d_sae"), dtype)
        else:
            allowed = noise[kind] if kind in noise else 2 * min(_stderr(a, keys), _stderr(b, keys))
        yield Moved(pair.where, dotted(keys), kind, left, right, allowed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stderr(facts: Mapping[str, Any], keys: Keys) -> float:
    """The standard error beside a value."""
    beside: Any = facts
    for key in keys[:-1]:
        beside = beside[key]
    return float(beside.get("stderr") or 0.0)


def _kind(keys: Keys, facts: Mapping[str, Any]) -> str | None:
    """What a fact is, by its name in the table; None for what must be equal."""
    match keys:
        case ("metrics", id, *_, "value"):
            return str(id)
        case ("metrics", id, *_, "stderr"):
            return f"{id}/stderr"
        case ("metrics", id, "n") if "members" in facts and facts["metrics"][id]["unit"] == "latents":
            return "group/latents"
        case ("tune", "validation", *_, "value" | "stderr" as which):
            id = facts["tune"]["validation"]["metric"]
            return str(id) if which == "value" else f"{id}/stderr"
        case ("training", "trajectory", _, "fvu" | "l0" as which):
            return f"trajectory/{which}"
        case ("training", "trajectory", _, "flops") | ("spent", "train" | "parent" | "all" | "scoring", "flops"):
            return "train-flops"
        case ("training", "dead_fraction"):
            return "trajectory/dead"
        case ("input_scale",):
            return "input-scale"
    return None


def _tells_how(keys: Keys, left: Any, right: Any) -> bool:
    """How training computed (back end, what its steps reported), and what pages draw where both sides have it."""
    match keys:
        case ("training", "numerics" | "facts", *_) | ("weights_digest",) | ("hooks", *_):
            return True
        case ("details", _, *deeper):
            return bool(deeper) or ABSENT not in (left, right)
    return False


def _of_samples(keys: Keys, facts: Mapping[str, Any], samples: Collection[str]) -> bool:
    """What a generated dataset turned out to hold, and to cost."""
    match keys:
        case ("dataset", "content" | "manifest" | "n_tokens" | "epochs", *_) | ("spent", "data", *_):
            return facts["dataset"].get("name") in samples
        case ("spent", "parent" | "all", *_):  # a parent's data may be samples too
            return facts["dataset"].get("name") in samples or (bool(facts.get("parent")) and bool(samples))
        case ("metrics", "data-cost-tokens", *_):
            return facts["dataset"].get("name") in samples
        case ("evaluation", "datasets", int(place), "content", *_):
            return facts["evaluation"]["datasets"][place].get("name") in samples
    return False
