"""Metric plugins, isolated: what one of them raises empties its own ids and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from saebench.api import (
    CellMetric,
    CellMetricSpec,
    GroupMember,
    GroupMetricSpec,
    MachineError,
    MetricContext,
    MetricResult,
    MetricValue,
    ScoredBatch,
    Stream,
)
from saebench.api.errors import contained, describe, place
from saebench.api.specs import resolve
from saebench.artifacts import canonical_json, refuse
from saebench.artifacts.shapes import not_sensible
from saebench.base.text import shown, without_folders

T = TypeVar("T")


def null_result(spec: CellMetricSpec | GroupMetricSpec, reason: str) -> MetricResult:
    """Null for every id of a spec, with one reason."""
    return MetricResult({info.id: MetricValue.of(info, None, 0, reason=reason) for info in spec.provides})


@dataclass(frozen=True)
class Answer:
    """What a metric gave, with every id that it promised. `failure`: what it raised, or how it broke its contract."""

    result: MetricResult
    failure: str | None = None


def checked(spec: CellMetricSpec | GroupMetricSpec, answer: object) -> Answer:
    """What a metric returned; what is missing or of a wrong kind is null with a reason that says so."""
    who = f"PluginError: metric '{spec.name}'"
    if not isinstance(answer, MetricResult):
        return _failed(spec, f"{who} must return saebench.api.MetricResult, got {type(answer).__name__}")
    strange = next((name for name, array in answer.arrays.items() if not isinstance(array, Tensor)), None)
    if strange is not None:
        kind = type(answer.arrays[strange]).__name__
        return _failed(spec, f"{who} gave array '{strange}' as {kind}, not as a tensor")
    values, failure = {}, None
    for info in spec.provides:
        value = answer.values.get(info.id)
        if isinstance(value, MetricValue):
            values[info.id] = _plain(value)
            continue
        kind = type(value).__name__
        found = "nothing for it" if value is None else f"{kind} for it, not saebench.api.MetricValue"
        failure = f"{who} returned {found}"
        values[info.id] = MetricValue.of(info, None, 0, reason=failure)
    return Answer(MetricResult(values, dict(answer.details), dict(answer.arrays)), failure)


def _plain(value: MetricValue) -> MetricValue:
    """The same in Python's own numbers, which a record can hold; raises where they are none."""
    number, error = (None if found is None else float(found) for found in (value.value, value.stderr))
    reason = None if value.reason is None else shown(value.reason)
    return replace(value, value=number, n=int(value.n), stderr=error, reason=reason)


def _failed(spec: CellMetricSpec | GroupMetricSpec, reason: str) -> Answer:
    return Answer(null_result(spec, reason), reason)


def attempted(call: Callable[[], T]) -> tuple[T | None, str | None]:
    """What a plugin's function gave; or None, and the exception on one line. What the machine refuses is raised, memory
    of a card as well: a score that lacks it alone would be null for good."""
    try:
        with contained():
            return call(), None
    except (MemoryError, MachineError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if refusal := refuse(error):
            raise refusal from error
        return None, without_folders(describe(error))


def answered(spec: CellMetricSpec | GroupMetricSpec, call: Callable[[], object]) -> Answer:
    """`checked(call())`, or nulls that quote the exception."""
    answer, failure = attempted(lambda: checked(spec, call()))
    return answer if answer is not None else _failed(spec, failure or "")


class Accumulator:
    """One cell metric on one dataset under one evaluation seed."""

    def __init__(self, spec: CellMetricSpec, context: MetricContext) -> None:
        self.spec = spec
        self._metric: CellMetric | None
        self._metric, self._error = attempted(lambda: resolve(spec.make)(context))

    def reads(self, stream: Stream) -> bool:
        """True when this metric still reads that stream."""
        return self._error is None and stream in self.spec.streams

    def update(self, stream: Stream, scored: ScoredBatch) -> None:
        """Hands one batch on; after an exception no more are."""
        if self._metric is not None and self.reads(stream):
            metric = self._metric
            _, self._error = attempted(lambda: metric.update(stream, scored))

    def compute(self) -> MetricResult:
        """Its values, or nulls that quote what it raised."""
        if self._error is not None or self._metric is None:
            return null_result(self.spec, self._error or "not made")
        return answered(self.spec, self._metric.compute).result


def measure_group(spec: GroupMetricSpec, members: Sequence[GroupMember]) -> Answer:
    """One group metric over its members."""
    try:
        return answered(spec, lambda: resolve(spec.make)().measure(members))
    except torch.OutOfMemoryError as error:  # it fails, and the next run tries it again
        return _failed(spec, without_folders(describe(error)) + place(error))


def plain_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details that can be written; one that cannot is replaced by a line that says why."""
    plain = {}
    for name, value in details.items():
        try:
            if wrong := not_sensible(json.loads(canonical_json({name: value}))):
                raise ValueError(wrong)
            plain[name] = value
        except (TypeError, ValueError, RecursionError) as error:
            name = shown(str(name))
            plain[name] = {"error": f"not written: {without_folders(describe(error))}"}
    return plain


def decode_tokens(details: Any, texts: Callable[[list[int]], list[str]]) -> Any:
    """Details with every `token_ids` list replaced by `text_tokens`: a record can be read without the tokenizer."""
    if isinstance(details, Mapping):
        plain = {key: decode_tokens(value, texts) for key, value in details.items() if key != "token_ids"}
        return {**plain, "text_tokens": texts(list(details["token_ids"]))} if "token_ids" in details else plain
    if isinstance(details, list | tuple):
        return [decode_tokens(item, texts) for item in details]
    return details
