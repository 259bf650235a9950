"""The suite file as pydantic models: names, types, ranges, defaults. `saebench.plan` checks what needs plugins."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from saebench.config.models import ModelConfig
from saebench.config.numbers import is_number
from saebench.config.values import Auto, Block, Count, Name, Seeds, Text, number, wrong

ANY_METRICS = ("core", "extended")


def _betas(value: Any) -> Any:
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(is_number(x) and 0 <= x < 1 for x in value)
    if value != "auto" and not pair:
        raise wrong(value, "a list of 2 numbers in [0, 1), or auto,")
    return value


class DatasetConfig(BaseModel):
    """A dataset plugin; every other key is one of its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    plugin: Text

    @property
    def options(self) -> Mapping[str, Any]:
        """The keys beside `plugin`."""
        return MappingProxyType(self.__pydantic_extra__ or {})


class TrainConfig(Block):
    """Training settings. A key that is not set falls through from entry to suite to the architecture's (`auto`).

    Attributes:
        batch: Tokens a step; auto: 1024.
        lr: Peak learning rate; auto: the architecture's, scaled by the inverse root of the width.
        betas, eps: Adam's.
        clip: Largest gradient norm; null: no clipping.
        warmup, decay: Fractions of the allotment.
        normalise: `rms` (auto): inputs divided by one scalar so that their mean squared norm is d_in; or `none`.
    """

    batch: Annotated[int | Auto, number("a whole number of at least 1", lambda x: x >= 1, auto=True, whole=True)] = (
        "auto"
    )
    lr: Annotated[float | Auto, number("a number over 0", lambda x: x > 0, auto=True)] = "auto"
    betas: Annotated[tuple[float, float] | Auto, BeforeValidator(_betas)] = "auto"
    eps: Annotated[float | Auto, number("a number over 0", lambda x: x > 0, auto=True)] = "auto"
    clip: Annotated[float | Auto | None, number("a number over 0, null", lambda x: x > 0, auto=True, null=True)] = (
        "auto"
    )
    warmup: Annotated[float | Auto, number("a fraction in [0, 1]", lambda x: 0 <= x <= 1, auto=True)] = "auto"
    decay: Annotated[float | Auto, number("a fraction in [0, 1]", lambda x: 0 <= x <= 1, auto=True)] = "auto"
    normalise: Literal["auto", "rms", "none"] = "auto"

    @model_validator(mode="before")
    @classmethod
    def _all_auto(cls, value: Any) -> Any:
        return {} if value == "auto" else value


class InitFrom(Block):
    """The entry whose finished weights a child starts from.

    Attributes:
        entry: Its name.
        at: Narrows the parent's sweep: `{k: 16}`.
    """

    entry: Name
    at: dict[StrictStr, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"entry": value} if isinstance(value, str) else value


class TuneConfig(BaseModel):
    """A search: every combination of the listed values is a candidate, and all candidates of a point divide its share.

    Every key beside `metric` is a config key of the architecture, or `lr`, with the values to try.

    Attributes:
        metric: Which cell metric, on the validation part of the held-out data, decides.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]]

    metric: Text = "fvu"

    @property
    def grid(self) -> Mapping[str, tuple[Any, ...]]:
        """Values to try, by key."""
        return MappingProxyType(self.__pydantic_extra__ or {})


class EntryConfig(Block):
    """A contender: an architecture with its config on a dataset, at one or more operating points."""

    name: Name
    architecture: Text
    dataset: Text
    config: dict[StrictStr, Any] = Field(default_factory=dict)
    sweep: dict[StrictStr, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    tune: TuneConfig | None = None
    init_from: InitFrom | None = None
    train: TrainConfig = TrainConfig()


class EvaluationConfig(Block):
    """What every cell is scored on. The first dataset gives the headline values; default: the first entry's dataset."""

    datasets: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    tokens: Count = 65_536
    loss_tokens: Count = 16_384
    density_tokens: Count = 65_536


class ActivationsConfig(Block):
    """Where training activations come from. Only `dtype` and `shuffle` decide what a cell sees, and so are in its id.

    Attributes:
        source: `store`: written to disk once, read through memory maps; `live`: made by the model at each reading.
        dtype: Precision of the activations, stored or live; computing is float32.
        shuffle: Rows of one shuffled block.
        build: A store is built `ahead` of training, or `parallel`: by the first epoch while it trains.
        prefetch: Blocks that a background thread keeps ready; auto: 1 on an accelerator, 0 on the CPU.
        quota_gb: Most that the run's stores may take on disk, in 10^9 bytes; older ones go first. null: no limit.
    """

    source: Literal["store", "live"] = "store"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    shuffle: Count = 65_536
    build: Literal["ahead", "parallel"] = "ahead"
    prefetch: Annotated[int | Auto, number("a whole number of at least 0", lambda x: x >= 0, auto=True, whole=True)] = (
        "auto"
    )
    quota_gb: Annotated[float | None, number("a number over 0", lambda x: x > 0, null=True)] = None


class BudgetConfig(Block):
    """What each cell may spend.

    Attributes:
        primary: What stops a cell.
        tokens, flops, device_seconds: The share; the primary one is required.
        memory_gb: Hard limit, in 10^9 bytes.
        pool: The figure is one allotment for all entries together, shared equally.
        counts: `train`: what a cell itself trains; `all`: making its data and its parent's cost too.
    """

    primary: Literal["tokens", "flops", "device_seconds"] = "tokens"
    tokens: Count | None = None
    flops: Annotated[int | None, number("a whole number over 0", lambda x: x > 0, whole=True, null=True)] = None
    device_seconds: Annotated[float | None, number("a number over 0", lambda x: x > 0, null=True)] = None
    memory_gb: Annotated[float | None, number("a number over 0", lambda x: x > 0, null=True)] = None
    pool: StrictBool = False
    counts: Literal["train", "all"] = "train"


class SeedsConfig(Block):
    """Seeds of initialisation, of the order of data, and of evaluation."""

    init: Seeds = (0,)
    data: Seeds = (0,)
    evaluation: Seeds = (0,)


def _metrics(value: Any) -> Any:
    if value in ANY_METRICS or (
        isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value)
    ):
        return value if isinstance(value, str) else tuple(value)
    raise wrong(value, "core, extended or a list of metric ids")


class SuiteConfig(Block):
    """A whole suite file, `extends` resolved."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: Name
    extends: StrictStr | None = None
    models: tuple[ModelConfig, ...] = ()
    datasets: dict[Name, DatasetConfig]
    entries: Annotated[tuple[EntryConfig, ...], Field(min_length=1)]
    train: TrainConfig = TrainConfig()
    activations: ActivationsConfig = ActivationsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    budget: BudgetConfig
    seeds: SeedsConfig = SeedsConfig()
    controls: StrictBool = False
    child_controls: StrictBool = True
    metrics: Annotated[
        str | tuple[str, ...],
        BeforeValidator(_metrics),
        WithJsonSchema(
            {"anyOf": [{"enum": list(ANY_METRICS)}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
        ),
    ] = "core"
