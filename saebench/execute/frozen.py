"""What an earlier run of a suite wrote down before it began: its plan, and the calibration that its shares of seconds rest on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from saebench.api.errors import Damaged
from saebench.artifacts import RunFolder, read_plan, read_record


def written_plan(run: RunFolder, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The plan in the folder; None where there is none, or where it is damaged, which is said."""
    if not os.path.lexists(run.plan):
        return None
    try:
        return read_plan(run)
    except Damaged as error:
        say(f"{error.found}. It is written again")
        return None


def frozen_calibration(run: RunFolder, suite_digest: str) -> dict[str, Any] | None:
    """The calibration of an earlier run of this very suite, from its plan, or from one of its records where the plan is lost."""
    plan = written_plan(run, lambda line: None)
    if plan is not None:
        return plan["budget"].get("calibration") if plan["suite_digest"] == suite_digest else None
    for path in run.record_paths():
        with suppress(Damaged):
            record = read_record(path)
            if record["facts"].get("suite_digest") == suite_digest:
                calibration: dict[str, Any] | None = record["measured"].get("calibration")
                return calibration
    return None
