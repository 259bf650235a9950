"""The frozen plan of a run folder, which proves itself as a record does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saebench.artifacts.atomic import write_json
from saebench.artifacts.layout import RunFolder
from saebench.artifacts.proof import read_sealed, sealed

_SEAL = "plan_sha256"


def write_plan(run: RunFolder, plan: Mapping[str, Any]) -> None:
    """Writes `Plan.to_json()` with its own digest, whole or not at all."""
    write_json(run.plan, sealed(plan, _SEAL))


def read_plan(run: RunFolder) -> dict[str, Any]:
    """What `write_plan` wrote.

    Raises:
        Damaged: It is missing, no plan, or was changed after it was written.
        MachineError: The machine refuses to read it.
    """
    plan = read_sealed(run.plan, _SEAL)
    del plan[_SEAL]
    return plan
