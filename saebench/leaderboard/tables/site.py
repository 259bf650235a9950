"""What the pages show: the board, its suites, and their sites (a model's hookpoint, or a dataset without a model)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saebench.leaderboard.numbers import to_json
from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.read.records import Json, LeftOut
from saebench.leaderboard.tables.agreement.datasets import DatasetAgreement
from saebench.leaderboard.tables.children import Child
from saebench.leaderboard.tables.equal_spend import EqualSpend
from saebench.leaderboard.tables.ranks import Level
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.searches import Search


@dataclass(frozen=True)
class Site:
    """One table: everything scored at one place on the same data.

    Attributes:
        model, token_policy, evaluation: As the records have them.
        kind: `model`, or the kind of its dataset.
        training_datasets: Each as the records have it.
        budgets: What its cells were given, as text.
        mixed_versions: Versions of metric specs of which there are several: nothing is ranked then.
        columns: Of the main table: those in which any row has a value.
        rows, controls: Contenders in the order of the table; controls.
        children: Children beside their parents trained on.
        across: Agreement over datasets.
        plugins: Distributions with their versions.
    """

    id: str
    title: str
    model: Json | None
    kind: str
    d_in: int | None
    training_datasets: tuple[Json, ...]
    token_policy: Json | None
    evaluation: Json
    evaluation_digest: str
    budgets: tuple[str, ...]
    seeds: tuple[int, ...]
    metric_info: Mapping[str, Json]
    metric_versions: Mapping[str, str]
    mixed_versions: Mapping[str, tuple[str, ...]]
    columns: tuple[TableColumn, ...]
    rows: tuple[Row, ...]
    controls: tuple[Row, ...]
    children: tuple[Child, ...]
    levels: tuple[Level, ...]
    across: tuple[DatasetAgreement, ...]
    searches: tuple[Search, ...]
    equal_spend: EqualSpend
    plugins: tuple[str, ...]


@dataclass(frozen=True)
class NotOk:
    """A cell without a score, or a group of which some metric failed."""

    cell: str
    place: str
    status: str
    error: str | None
    reason: str
    cell_id: str
    path: str


@dataclass(frozen=True)
class Suite:
    """One suite: its sites, and what has no score. `finished` is the time of its last record."""

    name: str
    digests: tuple[str, ...]
    sites: tuple[Site, ...]
    not_ok: tuple[NotOk, ...]
    cells: int
    finished: str | None


@dataclass(frozen=True)
class Board:
    """All that the pages show. Floats have 10 significant digits.

    Attributes:
        saebench: Version that made it.
        statistics: How its numbers were got, as text.
        columns: Every column that a record names, in the order of the tables.
        counts: Number of cells by status.
    """

    schema_version: int
    saebench: str
    statistics: Mapping[str, str | float]
    columns: tuple[TableColumn, ...]
    suites: tuple[Suite, ...]
    left_out: tuple[LeftOut, ...]
    counts: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """The JSON object that data.json holds."""
        found: dict[str, Any] = to_json(self)
        return found
