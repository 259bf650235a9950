"""Shapes of what records are made of: numbers within bounds, names, and the objects inside of a record's facts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from saebench.api.values import LARGEST


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


class HeldOutDataset(Dataset):
    """A dataset of an evaluation: it has a name."""

    name: Name


class Evaluation(Shape):
    """What a score was taken on."""

    datasets: list[HeldOutDataset] | None = None
    seeds: list[Count] | None = None
    tokens: Amount | None = None
    loss_tokens: Amount | None = None
    density_tokens: Amount | None = None
    thresholds: dict[str, Num | None] | None = None
    part: Text | None = None


class Load(Shape):
    """How a language model was loaded: what was not the default."""

    dtype: Name | None = None
    attention: Name | None = None
    quantisation: Name | None = None
    trust_remote_code: Flag | None = None


class Model(Shape):
    """A language model and where it is read."""

    id: Text
    hookpoint: Name
    hookpoint_name: Name | None = None
    revision: Text | None = None
    digest: Text | None = None
    context: Count | None = None
    load: Load | None = None


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
