"""Contenders at equal spend: every training run read off its trajectory at the largest spend that all of them reached.

A suite gives equal shares of one currency. What its records noted on the way lets a reader ask the other questions too:
equal tokens, equal FLOPs or equal seconds, of training alone or of everything it took (all-in).

A long run that is read early is not a short run: its learning rate has not decayed yet. Such readings are marked, and
below `LEAST_PROGRESS` of a run's schedule there are none.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from saebench.leaderboard.numbers import spend_text
from saebench.leaderboard.read.records import Json
from saebench.leaderboard.tables.ranking.curves import Curve, shared_price
from saebench.leaderboard.tables.ranks import Ranked, curve_families, order_of, ranking
from saebench.leaderboard.tables.row import Row, SeedCell
from saebench.leaderboard.tables.trajectories import UNITS, with_forwards

CURRENCIES = UNITS
VIEWS = ("training", "all-in")
CURRENCY_OF = {"flops": "flops", "device_seconds": "seconds"}
"""Currency of a budget whose primary is not tokens."""
LEAST_PROGRESS = 0.30
"""Least share of a run's schedule that a reading needs. Of 60,000 tokens, a run read at 7 % had FVU .497 where a run
of that budget has .439; at 25 % the sign of a comparison was reversed."""
_ALONE = "no other contender was trained on the same data, and FVU on training batches compares nothing across data"
_CONTROL = "a control: no training steps, no trajectory"
_CONTINUED = "a control: it stands beside its child"
_TOO_EARLY = (
    "read at {done:.0%} of its schedule, under {least:.0%}: what a long run had then says nothing of a short one"
)
_MACHINE = ("cpu", "device", "cores", "threads")


@dataclass(frozen=True)
class Run:
    """One training run in one currency.

    Attributes:
        before: Spent before its own training began: by the other candidates of its search; in the all-in view also on
            data and parent.
        points: (own spend, FVU, L0), by rising spend; in the all-in view with the model's forwards until then.
        searched: Part of `before` was spent by a search.
        decay: Last share of its schedule in which the learning rate falls.
    """

    before: float
    points: tuple[tuple[float, float, float], ...]
    searched: bool = False
    decay: float = 0.0

    @property
    def reach(self) -> float:
        """The most it spent."""
        return self.before + self.points[-1][0]

    def progress(self, spend: float) -> float:
        """Share of its own training that was done at `spend`."""
        return min(1.0, (spend - self.before) / self.points[-1][0])

    def at(self, spend: float) -> tuple[float, float] | None:
        """FVU and L0 at `spend`, linear in the log of its own training spend; None where it noted nothing around it."""
        if spend > self.reach:
            return None
        # `(before + last) - before` may come out a last bit beyond `last`
        own = min(spend - self.before, self.points[-1][0])
        for (low, *at_low), (high, *at_high) in itertools.pairwise(((0.0, math.nan, math.nan), *self.points)):
            if own == high:
                return at_high[0], at_high[1]
            if 0 < low < own < high:
                weight = math.log(own / low) / math.log(high / low)
                fvu, l0 = ((1 - weight) * a + weight * b for a, b in zip(at_low, at_high, strict=True))
                return fvu, l0
        return None


@dataclass(frozen=True)
class DataGroup:
    """Contenders that were trained on the same data, ranked by FVU; half of the pairs can tell apart `resolvable`.

    `marks` says of contenders whose reading is no end of a run where in its schedule it was taken.
    """

    data: str
    order: tuple[str, ...]
    contenders: Mapping[str, Ranked]
    resolvable: float | None
    marks: Mapping[str, str]


@dataclass(frozen=True)
class SpendLevel:
    """One sparsity level of a comparison; `absent` are the contenders that are not near it."""

    l0: float
    groups: tuple[DataGroup, ...]
    absent: tuple[str, ...]


@dataclass(frozen=True)
class NotCompared:
    """Contenders that a comparison leaves out, and why."""

    reason: str
    contenders: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """One comparison.

    Attributes:
        spend: None where there is none; `reason` says why.
        set_by: Rows whose whole run that is.
        mixed_machines: What differs between the machines, where seconds are compared.
    """

    currency: str
    view: str
    spend: float | None
    reason: str | None
    set_by: tuple[str, ...]
    mixed_machines: Mapping[str, tuple[str, ...]]
    levels: tuple[SpendLevel, ...]
    left_out: tuple[NotCompared, ...]


@dataclass(frozen=True)
class EqualSpend:
    """All six comparisons of a site by `<currency>-<view>`, and which of them a page shows first."""

    default: str
    states: Mapping[str, Comparison]


def equal_spend(rows: Sequence[Row], controls: Sequence[Row], levels: Sequence[float], budget: Json) -> EqualSpend:
    """All six comparisons of one site.

    Args:
        rows: The contenders.
        controls: Left out, and named.
        levels: L0s at which contenders are compared.
        budget: The suite's: it decides which of the six is first.
    """
    states = {
        f"{currency}-{view}": _comparison(currency, view, rows, controls, levels)
        for currency in CURRENCIES
        for view in VIEWS
    }
    currency = CURRENCY_OF.get(str(budget.get("primary")), "tokens")
    own = f"{currency}-{'all-in' if budget.get('counts') == 'all' else 'training'}"
    usable = [name for name, state in states.items() if state.spend is not None]
    return EqualSpend(own if own in usable or not usable else usable[0], states)


def _comparison(
    currency: str, view: str, rows: Sequence[Row], controls: Sequence[Row], levels: Sequence[float]
) -> Comparison:
    left_out: dict[str, list[str]] = defaultdict(list)
    runs: dict[str, dict[int, Run]] = {}
    for row in rows:
        decay = decay_of(row)
        found = {cell.seed: _run(cell, decay, currency, view) for cell in row.cells}
        runs[row.id] = {seed: run for seed, run in found.items() if isinstance(run, Run)}
        if not runs[row.id]:
            reasons = sorted({reason for reason in found.values() if isinstance(reason, str)})
            left_out["; ".join(reasons)].append(row.label)
    missing = "; ".join(sorted(left_out))
    for row in controls:
        left_out[_CONTINUED if row.continued else _CONTROL].append(row.label)
    spend = min((run.reach for found in runs.values() for run in found.values()), default=None)
    machines: dict[str, tuple[str, ...]] = {}
    at_levels: tuple[SpendLevel, ...] = ()
    if spend is not None:
        present = [row for row in rows if any(run.at(spend) for run in runs[row.id].values())]
        for row in rows:
            if runs[row.id] and row not in present:
                left_out[_not_begun(runs[row.id].values(), currency)].append(row.label)
        for row in present:
            if (done := _progress(runs[row.id].values(), spend)) < LEAST_PROGRESS:
                left_out[_TOO_EARLY.format(done=done, least=LEAST_PROGRESS)].append(row.label)
                runs[row.id] = {}
        present = [row for row in present if runs[row.id]]
        machines = _machines(present) if currency == "seconds" else {}
        at_levels = tuple(_levels(rows, runs, spend, levels, machines))
    return Comparison(
        currency,
        view,
        spend,
        reason=None if spend is not None else missing or "no contenders",
        set_by=tuple(row.label for row in rows if any(run.reach == spend for run in runs[row.id].values())),
        mixed_machines=machines,
        levels=at_levels,
        left_out=tuple(NotCompared(reason, tuple(names)) for reason, names in sorted(left_out.items())),
    )


def _run(cell: SeedCell, decay: float, currency: str, view: str) -> Run | str:
    """The cell's run in this currency, or why it has none."""
    if not cell.trajectory:
        return "no trajectory in its records: not trained step by step, or by an older version"
    whole = view == "all-in"
    forward = cell.forward.of(currency) if whole else 0.0
    if forward is None:
        return f"the {currency} of its model's forwards were not measured"
    points = with_forwards(cell.trajectory, currency, forward)
    if len(points) < len(cell.trajectory):
        return f"no {currency} at its trajectory points: trained by an older version"
    search = cell.search_all if whole else cell.search
    # a search divides one share: what its other candidates trained is training of this contender
    searched = 0.0 if search is None else search.of(currency)
    if searched is None:
        return "the seconds of its search were not measured"
    before = cell.before.of(currency) if whole else 0.0
    if before is None:
        return "the seconds of its data or its parent were not measured"
    spent = tuple((own, point.fvu, point.l0) for own, point in points if own > 0)
    if not spent:
        return f"no {currency} at its trajectory points: nothing was spent by then"
    return Run(before + searched, spent, searched > 0, decay)


def _progress(runs: Collection[Run], spend: float) -> float:
    """The least share of a schedule at which one of these runs is read."""
    return min((run.progress(spend) for run in runs if run.at(spend)), default=1.0)


def _mark(runs: Collection[Run], spend: float) -> str | None:
    """Where in its schedule a contender is read; None at the end, or where the learning rate never decays."""
    done, decay = _progress(runs, spend), max((run.decay for run in runs), default=0.0)
    if done >= 1 or not decay:
        return None
    return f"at {done:.0%} of its schedule, {'in' if done >= 1 - decay else 'before'} its decay"


def _not_begun(runs: Collection[Run], currency: str) -> str:
    before = min(run.before for run in runs)
    noted = "nothing of its own training was noted by then"
    what = "data, parent and search" if any(run.searched for run in runs) else "data and parent"
    return f"{noted}: its {what} alone cost {spend_text(before, currency)}" if before else noted


def _levels(
    rows: Sequence[Row],
    runs: Mapping[str, Mapping[int, Run]],
    spend: float,
    levels: Sequence[float],
    machines: Mapping[str, Sequence[str]],
) -> Iterator[SpendLevel]:
    """Ranks by FVU at each sparsity level, within each training dataset; levels without any contender are left out."""
    by_data: dict[tuple[tuple[str, str], ...], dict[str, Curve]] = defaultdict(dict)
    of_family: dict[str, list[Run]] = {}
    for name, members in curve_families(rows).items():
        curve = _curve(members, runs, spend)
        of_family[name] = [run for row in members for run in runs[row.id].values()]
        if curve.points:
            data = {(str(row.training_dataset), str(row.training_recipe)) for row in members}
            by_data[tuple(sorted(data))][name] = curve
    mixed = "seconds of different machines: " + "; ".join(f"{key} {', '.join(v)}" for key, v in machines.items())
    for level in levels:
        groups, absent = [], []
        for data_of, curves in sorted(by_data.items(), key=lambda item: (-len(item[1]), item[0])):
            refusal = mixed if machines else _ALONE if len(curves) == 1 and len(by_data) > 1 else None
            found = ranking(curves, shared_price(list(curves.values()), level), "lower", refusal, "log")
            near = tuple(name for name in order_of(found) if found.contenders[name].l0 is not None)
            absent += [name for name in order_of(found) if name not in near]
            marks = {name: mark for name in near if (mark := _mark(of_family[name], spend)) is not None}
            if near:
                label = ", ".join(dict.fromkeys(name for name, _ in data_of))
                groups.append(DataGroup(label, near, found.contenders, found.resolvable, marks))
        if groups:
            yield SpendLevel(level, tuple(groups), tuple(absent))


def _curve(rows: Sequence[Row], runs: Mapping[str, Mapping[int, Run]], spend: float) -> Curve:
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for seed, run in runs[row.id].items():
            if (found := run.at(spend)) is not None:
                points[seed].append((found[1], found[0]))
    whole = {seed: tuple(sorted(found)) for seed, found in sorted(points.items())}
    return Curve(whole, max(len(row.planned_seeds) for row in rows))


def decay_of(row: Row) -> float:
    """Last share of a row's schedule in which the learning rate falls; 0 where its records do not say."""
    decay = (row.train or {}).get("decay")
    return float(decay) if isinstance(decay, int | float) and 0 <= decay <= 1 else 0.0


def _machines(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Where these rows were trained, by what differs; empty when all were trained on one kind of machine."""
    found = {key: {text for row in rows for text in row.versions["host"].get(key, ())} for key in _MACHINE}
    return {key: tuple(sorted(texts)) for key, texts in found.items() if len(texts) > 1}
