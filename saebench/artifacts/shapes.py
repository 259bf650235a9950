"""What the JSON files of a run folder look like: checked once, where they are read, so that no reader asks again.

A record is other people's material: a number may be text, a list a mapping, a count negative. Keys that are not named here may hold
any JSON of a sensible size.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from saebench.api.values import LARGEST
from saebench.base.text import one_line

_MAX_DEPTH = 40
_MAX_BITS = 900
_MAX_FLOAT = 1e300


def _file_name(text: str) -> str:
    if text in ("", ".", "..") or any(char in text for char in "/\\\0"):
        raise ValueError("cannot be a part of a path")
    return text


Num = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Amount = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, le=LARGEST)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**63 - 1)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, max_length=100_000)]
Name = Annotated[str, Field(strict=True, min_length=1, max_length=300)]
FileName = Annotated[str, Field(strict=True, max_length=200), AfterValidator(_file_name)]
Digest = Annotated[str, Field(strict=True, min_length=1, max_length=128, pattern=r"^[0-9A-Za-z_-]+$")]


class Shape(BaseModel):
    """A JSON object; other keys are allowed."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Part(Shape):
    """One value of a metric: on a dataset, with an evaluation seed, of a slice."""

    value: Num | None = None
    stderr: Amount | None = None
    n: Count | None = None
    reason: Text | None = None
    dataset: Name | None = None
    seed: Count | None = None
    slice: Text | None = None


class Metric(Shape):
    """A metric over its parts."""

    value: Num | None
    unit: Text | None
    direction: Literal["lower", "higher", "neutral"]
    n: Count
    stderr: Amount | None
    reason: Text | None
    on: Name | None = None
    parts: list[Part] | None = None


class Info(Shape):
    """What a metric id means."""

    family: Text | None = None
    description: Text | None = None
    unit: Text | None = None
    direction: Text | None = None


class TableColumn(Shape):
    """How tables print a metric: what is not the default of `saebench.api.Column`, and whether the metric ranks."""

    name: Name
    family: Text = ""
    alone: Text = ""
    hint: Text = ""
    decimals: Annotated[int, Field(strict=True, ge=0, le=12)] = 3
    percent: Flag = False
    main: Flag = True
    place: Count = 100
    terminal: Text = ""
    chart: Literal["none", "l0", "dots"] = "none"
    replaces: list[Name] = []
    ranks: Flag = False


class Spent(Shape):
    """One kind of work."""

    tokens: Amount | None = None
    flops: Amount | None = None


class Budget(Shape):
    """What a cell was given."""

    primary: Text | None = None
    tokens: Amount | None = None
    share: Amount | None = None
    counts: Text | None = None
    candidates: Count | None = None


class Dataset(Shape):
    """A dataset as a record names it; of a cell that never began it may be empty."""

    name: Name | None = None
    plugin: Name | None = None
    version: Text | None = None
    kind: Name | None = None
    recipe: Text | None = None
    content: Text | None = None
    n_tokens: Amount | None = None
    epochs: Amount | None = None
    options: dict[str, Any] | None = None


class ScoredOn(Dataset):
    """A dataset of an evaluation: it has a name."""

    name: Name


class Evaluation(Shape):
    """What a score was taken on."""

    datasets: list[ScoredOn] | None = None
    seeds: list[Count] | None = None
    tokens: Amount | None = None
    loss_tokens: Amount | None = None
    density_tokens: Amount | None = None
    thresholds: dict[str, Num | None] | None = None
    part: Text | None = None


class Model(Shape):
    """A language model and where it is read."""

    id: Text
    hookpoint: Name
    hookpoint_name: Name | None = None
    revision: Text | None = None
    digest: Text | None = None
    context: Count | None = None


class Error(Shape):
    """Why a cell is not ok."""

    type: Text | None = None
    message: Text | None = None


class Point(Shape):
    """A point of the training trajectory."""

    tokens: Amount
    flops: Amount | None = None
    fvu: Amount | None = None
    l0: Amount | None = None


class Training(Shape):
    """What a cell noted while it trained."""

    trajectory: list[Point] | None = None
    numerics: dict[str, Any] | None = None
    facts: dict[str, Any] | None = None


class Base(Shape):
    """What a wrapper wraps."""

    architecture: Name
    version: Text
    config: dict[str, Any]


class Validation(Shape):
    """What a search goes by."""

    value: Num | None
    n: Count
    on: Name | None = None
    reason: Text | None = None


class Tune(Shape):
    """A candidate's place in its search."""

    group: Name
    point: Name
    metric: Name
    direction: Literal["lower", "higher", "neutral"]
    n_candidates: Count
    values: dict[str, Any]
    validation: Validation | None


class CellFacts(Shape):
    """The deterministic part of a cell's record."""

    status: Literal["ok", "failed", "diverged", "over_budget", "skipped"]
    suite: Name
    entry: Name
    point: Name
    architecture: Name
    architecture_version: Text | None = None
    control: Flag
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
            f"{one_line(where, 120)}: {first['msg'][:1].lower()}{first['msg'][1:]}, got {one_line(repr(first['input']), 60)}",
            300,
        )
    return not_sensible(value)


def not_sensible(value: Any) -> str | None:
    """What no reader of any part can take: depth, giant integers, halves of characters."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        below = []
        for item in level:
            for part in (*item, *item.values()) if isinstance(item, dict) else item:
                if isinstance(part, dict | list):
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
