"""What a run folder has done and what is left, from its plan and records alone."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import Field, dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from saebench.api.errors import Damaged, SaebenchError, SuiteError
from saebench.artifacts import RunFolder, read_json, read_plan, read_record, surviving
from saebench.artifacts.atomic import check_way
from saebench.artifacts.layout import FOLDERS
from saebench.artifacts.shapes import misshapen
from saebench.execute.lock import is_running


@dataclass(frozen=True)
class Memory:
    """Bytes of the process: as the plan predicted, mapped rows beside it, and the most that a run held so far."""

    predicted: float | None
    mapped: float | None
    peak: float


@dataclass(frozen=True)
class CellStatus:
    """One cell, named as in its plan (see `cells.cell.Cell.variant`).

    Attributes:
        state: Its record's status, `damaged` (the record is), `trained` (not scored yet), or `left`.
        memory: When its record was written.
    """

    entry: str
    point: str
    variant: str
    init_seed: int
    state: str
    error: str | None = None
    train_s: float | None = None
    score_s: float | None = None
    memory: Memory | None = None


@dataclass(frozen=True)
class Now:
    """What a run does.

    Attributes:
        phase, detail: `scoring`, `topk k8 s0`; None between two phases.
        since: When the phase began, in UTC.
        done, total, unit: How far it is, where that is known.
        note: FVU and L0 of what trains.
        share, left_s: Of the whole run, as predicted and corrected by what was seen.
    """

    phase: str | None
    detail: str | None
    since: str | None
    done: float | None
    total: float | None
    unit: str | None
    note: str | None
    share: float | None
    left_s: float | None

    def seconds(self) -> float | None:
        """Since the phase began."""
        try:
            return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.since or "")).total_seconds())
        except (ValueError, TypeError):  # not a time with a zone
            return None


@dataclass(frozen=True)
class RunStatus:
    """A run folder. `now` is what a run does at this moment; None where none runs, or it has not told yet."""

    suite: str
    running: bool
    cells: tuple[CellStatus, ...]
    now: Now | None = None
    refused: tuple[str, ...] = ()
    """Why entries were left out of the plan."""
    memory: Memory | None = None
    """When the process held most; None before the first record."""

    def counts(self) -> dict[str, int]:
        """Cells by state."""
        found: dict[str, int] = {}
        for cell in self.cells:
            found[cell.state] = found.get(cell.state, 0) + 1
        return found

    def seconds_left(self) -> float | None:
        """As the run tells; where none runs, left cells times the mean time of the finished ones; None without any."""
        if self.now is not None and self.now.left_s is not None:
            return self.now.left_s
        times = [(cell.train_s or 0.0) + (cell.score_s or 0.0) for cell in self.cells if cell.state == "ok"]
        left = sum(cell.state in ("left", "trained", "damaged") for cell in self.cells)
        return left * sum(times) / len(times) if times else None


def _memory(record: dict[str, Any]) -> Memory | None:
    """None of a record that was written before memory was."""
    told = record["measured"].get("memory") or {}
    peak = told.get("peak_bytes")
    return None if peak is None else Memory(told.get("predicted_bytes"), told.get("predicted_mapped_bytes"), peak)


def _group_memory(run: RunFolder) -> list[Memory | None]:
    """When the records of groups were written."""
    found = []
    for path in run.group_paths():
        with suppress(SaebenchError):  # a damaged one is scored again by the next run
            found.append(_memory(read_record(path, "group")))
    return found


def _cell(run: RunFolder, cell: dict[str, Any]) -> CellStatus:
    name = f"{cell['point']}-s{cell['init_seed']}-{cell['score_id'][:8]}.json"
    path = run.record(cell["suite"], cell["entry"], name)
    status = partial(CellStatus, cell["entry"], cell["point"], cell.get("variant", ""), cell["init_seed"])
    if os.path.lexists(path):
        try:
            record = read_record(path)
            if (record["cell_id"], record["score_id"]) != (cell["cell_id"], cell["score_id"]):
                raise Damaged(f"{path}: damaged (it is the record of another cell or score)")
        except Damaged as damage:
            return status("damaged", str(damage))
        times = record["measured"].get("times") or {}
        error = record["facts"]["error"] or {}
        state = record["facts"]["status"]
        return status(state, error.get("message"), times.get("train_s"), times.get("score_s"), _memory(record))
    return status("trained" if (surviving(run.checkpoint(cell["cell_id"])) / "sae.json").is_file() else "left")


def read_status(root: Path) -> RunStatus:
    """Status of a run folder.

    Raises:
        SuiteError: The folder holds no plan.
        MachineError: Something else has the name of a folder in it.
    """
    run = RunFolder(root)
    if not os.path.lexists(run.plan):
        raise SuiteError(
            f"{root}: no plan.json here, so this is no run folder. Give the folder that `saebench run --out` wrote "
            "(default runs/<suite>)."
        )
    plan = read_plan(run)
    if wrong := misshapen("plan", plan):
        raise SuiteError(f"{run.plan}: not readable as a plan ({wrong}). Run the suite again to write it anew.")
    for name in FOLDERS:
        check_way(root / name)
    cells = tuple(_cell(run, cell) for cell in plan["cells"])
    refused = tuple(str(refused["reason"]) for refused in plan.get("refused") or ())
    running = is_running(root)
    seen = filter(None, [*(cell.memory for cell in cells), *_group_memory(run)])
    memory = max(seen, key=lambda one: one.peak, default=None)
    return RunStatus(plan["suite"], running, cells, _now(run) if running else None, refused, memory)


def _now(run: RunFolder) -> Now | None:
    """What the run's file says. Only the lock tells that it is true: a killed run leaves its file."""
    try:
        told = read_json(run.progress)
        return Now(**{field.name: _fit(field, told.get(field.name)) for field in fields(Now)})
    except (SaebenchError, AttributeError):
        return None


def _fit(field: Field[Any], value: Any) -> Any:
    """The value, where it is of the field's kind."""
    kinds: tuple[type, ...] = (int, float) if "float" in str(field.type) else (str,)
    return value if isinstance(value, kinds) and not isinstance(value, bool) else None
