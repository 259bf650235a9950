"""What a run folder has done and what is left, from its plan and records alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.api.errors import Damaged, SuiteError, describe
from saebench.artifacts import RunFolder, read_plan, read_record, standing
from saebench.execute.lock import is_running


@dataclass(frozen=True)
class CellStatus:
    """One cell. `state` is a record's status, or `damaged` (its record), `trained` (checkpoint, no score yet), or `left`."""

    entry: str
    point: str
    init_seed: int
    state: str
    error: str | None
    train_s: float | None
    score_s: float | None


@dataclass(frozen=True)
class RunStatus:
    """A run folder."""

    suite: str
    running: bool
    cells: tuple[CellStatus, ...]
    refused: tuple[str, ...] = ()
    """Why entries were left out of the plan."""

    def counts(self) -> dict[str, int]:
        """Cells by state."""
        found: dict[str, int] = {}
        for cell in self.cells:
            found[cell.state] = found.get(cell.state, 0) + 1
        return found

    def seconds_left(self) -> float | None:
        """Left cells times the mean time of the finished ones; None while none has finished."""
        times = [(cell.train_s or 0.0) + (cell.score_s or 0.0) for cell in self.cells if cell.state == "ok"]
        left = sum(cell.state in ("left", "trained", "damaged") for cell in self.cells)
        return left * sum(times) / len(times) if times else None


def _cell(run: RunFolder, cell: dict[str, Any]) -> CellStatus:
    name = f"{cell['point']}-s{cell['init_seed']}-{cell['score_id'][:8]}.json"
    path = run.record(cell["suite"], cell["entry"], name)
    if os.path.lexists(path):
        try:
            record = read_record(path)
            if (record["cell_id"], record["score_id"]) != (cell["cell_id"], cell["score_id"]):
                raise Damaged(f"{path}: damaged (it is the record of another cell or score)")
        except Damaged as damage:
            return CellStatus(cell["entry"], cell["point"], cell["init_seed"], "damaged", str(damage), None, None)
        times = record["measured"].get("times", {})
        error = record["facts"].get("error")
        return CellStatus(
            cell["entry"],
            cell["point"],
            cell["init_seed"],
            record["facts"]["status"],
            error and error["message"],
            times.get("train_s"),
            times.get("score_s"),
        )
    state = "trained" if (standing(run.checkpoint(cell["cell_id"])) / "sae.json").is_file() else "left"
    return CellStatus(cell["entry"], cell["point"], cell["init_seed"], state, None, None, None)


def read_status(root: Path) -> RunStatus:
    """Status of a run folder.

    Raises:
        SuiteError: The folder holds no plan.
    """
    run = RunFolder(root)
    if not os.path.lexists(run.plan):
        raise SuiteError(
            f"{root}: no plan.json here, so this is no run folder. Give the folder that `saebench run --out` wrote (default runs/<suite>)."
        )
    try:
        plan = read_plan(run)
        cells = tuple(_cell(run, cell) for cell in plan["cells"])
        refused = tuple(str(refused["reason"]) for refused in plan.get("refused", ()))
    except (ValueError, KeyError, TypeError) as error:
        raise SuiteError(
            f"{run.plan}: not readable as a plan ({describe(error)}). Run the suite again to write it anew."
        ) from error
    return RunStatus(plan["suite"], is_running(root), cells, refused)
