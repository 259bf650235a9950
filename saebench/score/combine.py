"""From one value per (dataset, evaluation seed) to the entry of a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from saebench.api import MetricInfo, MetricValue


@dataclass(frozen=True)
class DatasetValue:
    """One value of one metric. `dataset` and `seed` are None for what is no matter of data (stored bytes)."""

    dataset: str | None
    seed: int | None
    value: MetricValue

    def to_json(self) -> dict[str, Any]:
        """One row of `parts`."""
        value = self.value
        return {
            "dataset": self.dataset,
            "seed": self.seed,
            "slice": None,
            "value": value.value,
            "stderr": value.stderr,
            "n": value.n,
            "reason": value.reason,
        }


def combine(info: MetricInfo, found: Sequence[DatasetValue]) -> dict[str, Any]:
    """`{value, unit, direction, n, stderr, reason, on, parts}` of one metric.

    `value` is the mean over evaluation seeds on the dataset of the first value, `n` the sum. One null among them makes
    it null: a mean over fewer seeds would be another quantity. Evaluation seeds read overlapping text, so that their
    errors are not independent; the mean of their standard errors bounds that of the mean from above, whatever the
    correlation (exact for one seed).
    """
    on = found[0].dataset
    head = [one for one in found if one.dataset == on]
    values = [one.value.value for one in head]
    errors = [one.value.stderr for one in head]
    empty = next((one for one in head if one.value.value is None), None)
    known = [value for value in values if value is not None]
    known_errors = [error for error in errors if error is not None]
    reason = None
    if empty is not None:
        reason = empty.value.reason if len(head) == 1 else f"evaluation seed {empty.seed}: {empty.value.reason}"
    return {
        "value": sum(known) / len(known) if reason is None else None,
        "unit": info.unit,
        "direction": info.direction,
        "n": sum(one.value.n for one in head),
        "stderr": sum(known_errors) / len(head) if reason is None and len(known_errors) == len(head) else None,
        "reason": reason,
        "on": on,
        "parts": [one.to_json() for one in found],
    }


def info_json(provided: Iterable[MetricInfo]) -> dict[str, dict[str, Any]]:
    """`metric_info` of a record, each with its column, which the record keeps apart from the facts."""
    return {
        info.id: {
            "family": info.family,
            "description": info.description,
            "unit": info.unit,
            "direction": info.direction,
            "measured": info.measured,
            "column": _column(info),
        }
        for info in provided
    }


def _column(info: MetricInfo) -> dict[str, Any] | None:
    """What its author said of the column: the settings that are not the defaults."""
    if info.column is None:
        return None
    given = ((field, getattr(info.column, field.name)) for field in fields(info.column))
    said = {field.name: value for field, value in given if value != field.default}
    if info.ranks:
        said |= {"ranks": True}
    if info.scale != "identity":
        said |= {"scale": info.scale}
    return said
