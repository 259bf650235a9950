"""Every child beside its control: its parent, trained on by the same spend with the parent's own data and loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.ranking.curves import PRICE_TOLERANCE, apart
from saebench.leaderboard.tables.ranking.moderated import prior_of
from saebench.leaderboard.tables.ranking.scales import scale_for
from saebench.leaderboard.tables.ranking.verdicts import conclude, pool, sample
from saebench.leaderboard.tables.row import Row


@dataclass(frozen=True)
class Against:
    """A child and its control by one metric.

    Attributes:
        id: The metric's.
        child, control: Means over seeds, taken on the metric's scale.
        difference: Child less control.
        resolvable: The smallest difference that so many seeds could tell.
        verdict: `better`, `worse`, `tie` or `cannot tell: ...`, of the child. Each comparison stands by itself.
    """

    id: str
    child: float
    control: float
    difference: float
    resolvable: float | None
    verdict: str


@dataclass(frozen=True)
class Child:
    """One child and its control.

    Attributes:
        label, row: Of the child.
        control, control_row: Of its control.
        tokens, control_tokens: What each was trained on after the parent, a seed.
        metrics: By each metric that contenders are ranked by.
    """

    label: str
    row: str
    control: str
    control_row: str
    tokens: float | None
    control_tokens: float | None
    metrics: tuple[Against, ...]


def children(rows: Sequence[Row], columns: Sequence[TableColumn]) -> tuple[Child, ...]:
    """All children of a table that have a control in it, in the order of the rows."""
    found = []
    for row in rows:
        if row.control or not (control := _control_of(row, rows)):
            continue
        metrics = [_against(column, row, control, rows) for column in columns if column.ranks]
        found.append(
            Child(
                row.label,
                row.id,
                control.label,
                control.id,
                _trained(row),
                _trained(control),
                tuple(metric for metric in metrics if metric is not None),
            )
        )
    return tuple(found)


def _control_of(child: Row, rows: Sequence[Row]) -> Row | None:
    """Of controls that start from the same cells, the one of the nearest spend; of these the one trained alike."""
    parents = {cell.parent for cell in child.cells} - {None}
    near = [row for row in rows if row.continued and parents & {cell.parent for cell in row.cells}]

    def distance(row: Row) -> tuple[float, bool, str]:
        return abs((_trained(row) or 0.0) - (_trained(child) or 0.0)), row.train != child.train, row.label

    return min(near, key=distance, default=None)


def _trained(row: Row) -> float | None:
    """Tokens of its own training; of a search all candidates'."""
    own, search = row.cost.get("train_tokens"), row.cost.get("search_tokens", 0.0)
    return None if own is None or search is None else own + search


def _against(column: TableColumn, child: Row, control: Row, rows: Sequence[Row]) -> Against | None:
    """By one metric, on its scale, with variances that are moderated by those of all trained rows."""
    pool_of = [found for row in rows if row.continued or not row.control if (found := _by_seed(row, column.id))]
    seeds = {"child": _by_seed(child, column.id), "control": _by_seed(control, column.id)}
    if not all(seeds.values()):
        return None
    on = scale_for(column.scale, (value for values in pool_of for value in values.values()))
    prior = prior_of(pool([[on.to(value) for value in values.values()] for values in pool_of]))
    samples = {
        name: sample({seed: on.to(value) for seed, value in values.items()}, prior, _why_not(row, control, child))
        for (name, values), row in zip(seeds.items(), (child, control), strict=True)
    }
    _, (pair,) = conclude(samples, on, higher_is_better=column.direction != "lower")
    values = {name: on.back(found.estimate) for name, found in samples.items()}
    difference = values["child"] - values["control"]
    if pair.verdict == "separated":
        verdict = "better" if (difference > 0) == (column.direction != "lower") else "worse"
    else:
        verdict = f"cannot tell: {pair.reason}" if pair.reason else pair.verdict
    return Against(column.id, values["child"], values["control"], difference, pair.resolvable, verdict)


def _why_not(row: Row, control: Row, child: Row) -> str | None:
    """Why a row is not compared, or None."""
    if row.unranked or len(row.seeds) < len(row.planned_seeds):
        return row.unranked or f"{len(row.seeds)} of {len(row.planned_seeds)} seeds"
    prices = child.price, control.price
    if min(prices) > 0 and apart(*prices) > PRICE_TOLERANCE:
        return f"a code has {prices[0]:.4g} values here and {prices[1]:.4g} there" if row is child else None
    return None


def _by_seed(row: Row, id: str) -> dict[int, float]:
    metric = row.metrics.get(id)
    seeds = {} if metric is None else metric.seeds
    return {int(seed): value for seed, value in seeds.items() if int(seed) not in row.copies}
