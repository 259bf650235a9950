"""What a row of the tables holds: the seeds of one (entry, point), taken together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.read.records import Json
from saebench.leaderboard.tables.agreement.values import SeedAgreement
from saebench.leaderboard.tables.details import Density, LatentContexts
from saebench.leaderboard.tables.ranking.noise import Noise
from saebench.leaderboard.tables.ranking.verdicts import Standing
from saebench.leaderboard.tables.statistics import Estimate, MetricCell
from saebench.leaderboard.tables.trajectories import Point, Spend, sum_or_none


@dataclass(frozen=True)
class Shown:
    """One cell of a table: value (fractions in percent), half-width of its interval, number of seeds, or the reason."""

    value: float | None
    half: float | None
    n: int
    reason: str | None


@dataclass(frozen=True)
class RowStanding(Standing):
    """Standing by the primary metric at the sparsity level that the row belongs to."""

    level: float | None = None


@dataclass(frozen=True)
class SeedCell:
    """One seed of a row.

    Attributes:
        path: Of its record.
        parent: `cell_id` of the cell that it starts from.
        before: Spent on its data and its parent.
        forward: Spent on the model's forwards for its own training.
        trajectory: Its own training.
        search: What the other candidates of its search spent on training with this seed; None where it was not tuned.
        search_all: The same with the model's forwards.
    """

    seed: int
    cell_id: str
    score_id: str
    path: str
    before: Spend
    forward: Spend
    trajectory: tuple[Point, ...]
    search: Spend | None = None
    search_all: Spend | None = None
    parent: str | None = None


@dataclass(frozen=True)
class Tuned:
    """What a winner of a search won."""

    text: str
    search: str
    metric: str
    values: Json
    validation: Estimate


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        sweep, config, base, train, budget: As the records have them.
        training_contents: Content digests of what it was trained on.
        cost: Mean over seeds of `<kind>_<unit>`: tokens, flops and seconds of train, data, parent, forward, scoring,
            search and all.
        metrics: Metric over the seeds, by id.
        group: The same of metrics of the group of its seeds.
        stability: None for controls.
        noise: Of training and of evaluation, by metric; empty with one seed of either.
        other_datasets: dataset -> metric -> estimate, where there are several evaluation datasets.
        continued: Of a control: it is a child's parent, trained on.
        copies: Seeds whose weights are those of an earlier seed.
        unranked: Why it is not ranked whatever its values are; None where it may be.
        curved: Its decoder is not linear in the codes.
        standing: None for controls.
        tune: None where it was not tuned.
        versions: plugins, packages, metrics and host: values by name.
    """

    id: str
    label: str
    entry: str
    point: str
    sweep: Json
    architecture: str
    architecture_version: str | None
    base: Json | None
    config: Json
    tags: tuple[str, ...]
    control: bool
    training_dataset: str | None
    training_recipe: str | None
    training_contents: tuple[str, ...]
    epochs: float | None
    train: Json | None
    d_in: int | None
    d_sae: int | None
    expected_l0: float | None
    data_seed: int
    budget: Json
    seeds: tuple[int, ...]
    planned_seeds: tuple[int, ...]
    cost: Mapping[str, float | None]
    metrics: Mapping[str, MetricCell]
    group: Mapping[str, MetricCell]
    stability: SeedAgreement | None
    noise: Mapping[str, Noise]
    other_datasets: Mapping[str, Mapping[str, Estimate]]
    density: Density | None
    trajectory: tuple[Point, ...]
    contexts: tuple[LatentContexts, ...]
    deterministic: bool
    numerics: Mapping[str, tuple[str, ...]]
    versions: Mapping[str, Mapping[str, tuple[str, ...]]]
    cells: tuple[SeedCell, ...]
    continued: bool = False
    copies: tuple[int, ...] = ()
    unranked: str | None = None
    curved: bool = False
    standing: RowStanding | None = None
    tune: Tuned | None = None

    def value(self, id: str) -> float | None:
        """Mean of a metric over the seeds; None where it was not measured."""
        metric = self.metrics.get(id) or self.group.get(id)
        return None if metric is None else metric.value

    @property
    def l0(self) -> float:
        """Mean measured L0; 0 where it was not measured."""
        return self.value("l0") or 0.0

    @property
    def price(self) -> float:
        """Mean values of a code: L0 and declared side values; L0 where that was not measured, 0 without one."""
        return self.value("values-per-token") or self.l0

    def shown(self, column: TableColumn) -> Shown:
        """What the row has in a column."""
        if column.id == "cost:train":
            spent = (self.cost["train_tokens"], self.cost.get("search_tokens", 0.0))
            return Shown(sum_or_none(spent), None, len(self.seeds), None)
        if column.id == "cost:all":
            return Shown(self.cost["all_tokens"], None, len(self.seeds), None)
        if column.id == "size:d_sae":
            return Shown(self.d_sae, None, len(self.seeds), None if self.d_sae is not None else "not in its records")
        if column.id == "size:stored-bytes":
            return Shown(self.value("stored-bytes"), None, len(self.seeds), None)
        metric = self.metrics.get(column.id) or self.group.get(column.id)
        if metric is None:
            return Shown(None, None, 0, "not measured")
        scale = 100.0 if column.percent else 1.0
        value, half = (None if found is None else found * scale for found in (metric.value, metric.half))
        return Shown(value, half, metric.n, metric.reason)
