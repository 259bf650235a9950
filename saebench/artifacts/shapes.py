"""What the JSON files of a run folder look like: checked once, where they are read, so that no reader asks again.

A record is other people's material: a number may be text, a list a mapping, a count negative. Keys that are not named
here may hold any JSON of a sensible size.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from saebench.artifacts.fields import (
    Amount,
    Base,
    Budget,
    Count,
    Dataset,
    Digest,
    Error,
    Evaluation,
    FileName,
    Flag,
    Info,
    Metric,
    Model,
    Name,
    Shape,
    Spent,
    TableColumn,
    Text,
    Training,
    Tune,
)
from saebench.base.text import one_line

_MAX_DEPTH = 40
_MAX_BITS = 900
_MAX_FLOAT = 1e300


class CellFacts(Shape):
    """The deterministic part of a cell's record."""

    status: Literal["ok", "failed", "diverged", "over_budget", "skipped"]
    suite: Name
    entry: Name
    point: Name
    architecture: Name
    architecture_version: Text | None = None
    control: Flag
    continued: Flag | None = None
    parent: Text | None = None
    init_seed: Count
    data_seed: Count
    config: dict[str, Any]
    sweep: dict[str, Any] | None = None
    base: Base | None = None
    tags: list[Text] | None = None
    dataset: Dataset
    metrics: dict[Name, Metric]
    metric_info: dict[str, Info] | None = None
    metric_versions: dict[str, Text] | None = None
    spent: dict[str, Spent] | None
    budget: Budget | None
    evaluation: Evaluation | None
    model: Model | None
    error: Error | None
    training: Training | None = None
    train: dict[str, Any] | None = None
    details: dict[str, Any] | None = None
    tune: Tune | None = None
    d_in: Count | None = None
    d_sae: Count | None = None
    expected_l0: Amount | None = None
    suite_digest: Text | None = None


class Measured(Shape):
    """Times, host and versions."""

    metrics: dict[Name, Metric] | None = None
    finished: Text | None = None
    versions: dict[str, Any] | None = None
    host: dict[str, Any] | None = None
    plugins: dict[str, dict[str, Any]] | None = None
    times: dict[str, Amount | None] | None = None
    spent_s: dict[str, Amount | None] | None = None
    trajectory_s: list[Amount | None] | None = None
    memory: dict[str, Amount | None] | None = None


class Cell(Shape):
    """A cell's record."""

    cell_id: Name
    score_id: Name
    supersedes: Name | None = None
    columns: dict[Name, TableColumn] | None = None
    facts: CellFacts
    measured: Measured


class Member(Shape):
    """A cell among a group's."""

    score_id: Name
    cell_id: Name | None = None
    status: Name
    init_seed: Count = 0
    label: Text | None = None
    entry: Name | None = None
    dataset: Name | None = None


class GroupFacts(Shape):
    """The deterministic part of a group's record."""

    status: Literal["ok", "failed", "diverged", "over_budget", "skipped"]
    suite: Name
    entry: Name
    point: Name
    vary: Name = "init_seed"
    architecture: Name | None = None
    control: Flag | None = None
    model: Model | None = None
    dataset: Name | Dataset | None = None
    datasets: list[Name] | None = None
    d_sae: Count | None = None
    members: list[Member]
    metrics: dict[Name, Metric]
    metric_info: dict[str, Info] | None = None
    details: dict[str, Any] | None = None


class Group(Shape):
    """A group's record."""

    group_id: Name
    columns: dict[Name, TableColumn] | None = None
    facts: GroupFacts
    measured: Measured


class PlannedCell(Shape):
    """A cell of plan.json, as far as `status` reads it."""

    suite: FileName
    entry: FileName
    point: FileName
    init_seed: Count
    cell_id: Digest
    score_id: Digest
    variant: Text = ""


class Refused(Shape):
    """An entry that the plan leaves out, and why."""

    reason: Text


class PlanFile(Shape):
    """plan.json, as far as `status` reads it."""

    suite: Name
    cells: list[PlannedCell]
    refused: list[Refused] | None = None


Kind = Literal["cell", "group", "plan"]
_SHAPES: dict[Kind, type[Shape]] = {"cell": Cell, "group": Group, "plan": PlanFile}


def misshapen(kind: Kind, value: Any) -> str | None:
    """What is wrong with the shape of a file's content, in one line; None where nothing is."""
    try:
        _SHAPES[kind].model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
        return one_line(
            f"{one_line(where, 120)}: {first['msg'][:1].lower()}{first['msg'][1:]}, got "
            f"{one_line(repr(first['input']), 60)}",
            300,
        )
    return not_sensible(value)


def not_sensible(value: Any) -> str | None:
    """What no reader of any part can take: depth, giant integers, halves of characters."""
    level, containers = [value], (dict, list)
    for _ in range(_MAX_DEPTH):
        below = []
        for item in level:
            for part in (*item, *item.values()) if isinstance(item, dict) else item:
                if isinstance(part, containers):
                    below.append(part)
                elif isinstance(part, int):
                    if part.bit_length() > _MAX_BITS:
                        return f"an integer of {part.bit_length()} bits"
                elif isinstance(part, float):
                    if not abs(part) <= _MAX_FLOAT:
                        return f"a number of {part}"
                elif isinstance(part, str) and not part.isascii():
                    try:
                        part.encode()
                    except UnicodeEncodeError:
                        return f"half a character in {one_line(repr(part), 60)}"
        if not below:
            return None
        level = below
    return f"nested deeper than {_MAX_DEPTH} levels"
