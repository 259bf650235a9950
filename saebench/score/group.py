"""Scoring a group: metrics over the checkpoints of cells that differ in one thing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saebench.api import GroupMember
from saebench.cells.plan import Group
from saebench.host import Catalog
from saebench.score.combine import DatasetValue, combine, info_json
from saebench.score.isolate import Answer, measure_group, null_result, plain_details


@dataclass
class GroupOutcome:
    """What a group record needs.

    Attributes:
        status: ok, skipped where fewer than two members are ok, or failed where a metric raised or broke its contract.
        error: `{type, message}` of what failed; the other metrics of the group keep their values.
        metrics, metric_info, metric_versions, details: As in a cell's record; `on` is null and `parts` is empty.
        measured_metrics: Those that differ between equal runs.
        arrays: `[d_sae]` arrays of the members, `<name>/<member label>`.
        times: Seconds.
    """

    status: str
    metrics: dict[str, Any]
    measured_metrics: dict[str, Any]
    metric_info: dict[str, Any]
    metric_versions: dict[str, str]
    details: dict[str, Any]
    arrays: dict[str, Tensor]
    times: dict[str, float]
    error: dict[str, str] | None = None


def score_group(
    group: Group,
    members: Sequence[GroupMember],
    catalog: Catalog,
    *,
    missing: Sequence[str] = (),
    failure: str | None = None,
) -> GroupOutcome:
    """Every group metric over the members that are ok.

    Args:
        group: Its `metrics` name the specs.
        members: Those that are ok, each in inference form.
        catalog: Installed plugins.
        missing: Label and status of the others (`s1 (diverged)`); named where two are needed and are not there.
        failure: Why the members could not be had; every metric is null for that reason then.
    """
    started = time.perf_counter()
    specs = [catalog.group_metric(name).spec for name in sorted(group.metrics)]
    enough = len(members) >= 2 and failure is None
    failures = {} if failure is None else {"its members": failure}
    others = f"; without {', '.join(missing)}" if missing else ""
    names = ", ".join(member.label for member in members) or "none"
    count = f"there {'is' if len(members) == 1 else 'are'} {len(members)} ({names}){others}"
    reason = f"needs two or more SAEs that differ in {' and '.join(group.vary)}, {count}"
    entries: dict[str, Any] = {}
    details: dict[str, Any] = {}
    arrays: dict[str, Tensor] = {}
    provided = [info for spec in specs for info in spec.provides]
    with torch.no_grad():
        for spec in specs:
            answer = measure_group(spec, members) if enough else Answer(null_result(spec, failure or reason))
            if answer.failure is not None:
                failures[f"metric '{spec.name}'"] = answer.failure
            result = answer.result
            details.update(plain_details(dict(result.details)))
            arrays.update({name: array.detach().cpu() for name, array in result.arrays.items()})
            for info in spec.provides:
                entries[info.id] = {**combine(info, [DatasetValue(None, None, result.values[info.id])]), "parts": []}
    measured = {info.id for info in provided if info.measured}
    return GroupOutcome(
        status="failed" if failures else "ok" if enough else "skipped",
        metrics={id: entry for id, entry in entries.items() if id not in measured},
        measured_metrics={id: entry for id, entry in entries.items() if id in measured},
        metric_info=info_json(provided),
        metric_versions={spec.name: spec.version for spec in specs},
        details=details,
        arrays=arrays,
        times={"score_s": time.perf_counter() - started},
        error=_error(failures),
    )


def _error(failures: Mapping[str, str]) -> dict[str, str] | None:
    """`error` of the record; None where nothing failed."""
    if not failures:
        return None
    return {"type": "PluginError", "message": "; ".join(f"{what}: {reason}" for what, reason in failures.items())}
