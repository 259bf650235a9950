"""Every child beside its control: its parent, trained on by the same spend with the parent's own data and loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from saebench.leaderboard.read.columns import TableColumn
from saebench.leaderboard.tables.row import Row
from saebench.leaderboard.tables.statistics import compare_seeds


@dataclass(frozen=True)
class Against:
    """A child and its control by one metric.

    Attributes:
        id: The metric's.
        child, control: Means over the seeds that each has.
        difference, half: Child less control, over seeds, with the half-width of its 95 % interval.
        verdict: `better`, `worse`, `not separated` or `cannot tell: ...`, of the child.
    """

    id: str
    child: float
    control: float
    difference: float
    half: float | None
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
        metrics = [_against(column, row, control) for column in columns if column.ranks]
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


def _against(column: TableColumn, child: Row, control: Row) -> Against | None:
    seeds = [_by_seed(row, column.id) for row in (child, control)]
    if not all(seeds):
        return None
    found = compare_seeds(*seeds)
    if found.half is None:
        verdict = "cannot tell: one seed"
    elif not found.separated:
        verdict = "not separated"
    else:
        verdict = "better" if (found.difference > 0) == (column.direction == "higher") else "worse"
    values = [child.value(column.id), control.value(column.id)]
    return Against(column.id, values[0] or 0.0, values[1] or 0.0, found.difference, found.half, verdict)


def _by_seed(row: Row, id: str) -> Mapping[int, float]:
    metric = row.metrics.get(id)
    return {} if metric is None else {int(seed): value for seed, value in metric.seeds.items()}
