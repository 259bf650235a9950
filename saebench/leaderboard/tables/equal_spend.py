"""Contenders at equal spend: every training run read off its trajectory at the largest spend that all of them reached.

A suite gives equal shares of one currency. What its records noted on the way lets a reader ask the other questions too: equal tokens,
equal FLOPs or equal seconds, of training alone or with what making the data and training the parent cost.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.leaderboard.pages.text import spend_text
from saebench.leaderboard.tables.ranks import curve_families, order_of, ranking
from saebench.leaderboard.tables.statistics import Curve

CURRENCIES = ("tokens", "flops", "seconds")
VIEWS = ("training", "all-in")
CURRENCY_OF = {"flops": "flops", "device_seconds": "seconds"}
"""Currency of a budget whose primary is not tokens."""
_ALONE = "no other contender was trained on the same data, and FVU on training batches compares nothing across data"
_MACHINE = ("cpu", "device", "cores", "threads")


@dataclass(frozen=True)
class Run:
    """One training run in one currency.

    Attributes:
        before: Spent before its own training began: by the other candidates of its search; in the all-in view also on data and parent.
        points: (own spend, FVU, L0), by rising spend.
        searched: Part of `before` was spent by a search.
    """

    before: float
    points: tuple[tuple[float, float, float], ...]
    searched: bool = False

    @property
    def reach(self) -> float:
        """The most it spent."""
        return self.before + self.points[-1][0]

    def at(self, spend: float) -> tuple[float, float] | None:
        """FVU and L0 at `spend`, linear in the log of its own training spend; None before its first point and beyond its last."""
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


def equal_spend(
    rows: Sequence[Mapping[str, Any]],
    controls: Sequence[Mapping[str, Any]],
    levels: Sequence[float],
    budget: Mapping[str, Any],
) -> dict[str, Any]:
    """All six comparisons of one site.

    Args:
        rows: The contenders.
        controls: Left out, and named.
        levels: L0s at which contenders are compared.
        budget: The suite's: which of the six stands first.

    Returns:
        `{"default": "tokens-training", "states": {"tokens-training": {...}, ...}}`; see `_state`.
    """
    states = {
        f"{currency}-{view}": _state(currency, view, rows, controls, levels)
        for currency in CURRENCIES
        for view in VIEWS
    }
    currency = CURRENCY_OF.get(str(budget.get("primary")), "tokens")
    own = f"{currency}-{'all-in' if budget.get('counts') == 'all' else 'training'}"
    usable = [name for name, state in states.items() if state["spend"] is not None]
    return {"default": own if own in usable or not usable else usable[0], "states": states}


def _state(
    currency: str,
    view: str,
    rows: Sequence[Mapping[str, Any]],
    controls: Sequence[Mapping[str, Any]],
    levels: Sequence[float],
) -> dict[str, Any]:
    """One comparison: `spend` (or None with `reason`), `set_by` (whose whole run that is), `levels`, `left_out`, `mixed_machines`."""
    left_out: dict[str, list[str]] = defaultdict(list)
    runs: dict[str, dict[int, Run]] = {}
    for row in rows:
        found = {cell["seed"]: _run(cell, currency, view) for cell in row["cells"]}
        runs[row["id"]] = {seed: run for seed, run in found.items() if isinstance(run, Run)}
        if not runs[row["id"]]:
            left_out["; ".join(sorted({reason for reason in found.values() if isinstance(reason, str)}))].append(
                row["label"]
            )
    missing = "; ".join(sorted(left_out))
    for row in controls:
        left_out["a control: no training steps, no trajectory"].append(row["label"])
    spend = min((run.reach for found in runs.values() for run in found.values()), default=None)
    state: dict[str, Any] = {
        "currency": currency,
        "view": view,
        "spend": spend,
        "reason": None if spend is not None else missing or "no contenders",
        "set_by": [row["label"] for row in rows if any(run.reach == spend for run in runs[row["id"]].values())],
        "mixed_machines": {},
        "levels": [],
    }
    if spend is not None:
        present = [row for row in rows if any(run.at(spend) for run in runs[row["id"]].values())]
        for row in rows:
            if runs[row["id"]] and row not in present:
                left_out[_not_begun(runs[row["id"]].values(), currency)].append(row["label"])
        state["mixed_machines"] = _machines(present) if currency == "seconds" else {}
        state["levels"] = list(_levels(rows, runs, spend, levels, state["mixed_machines"]))
    state["left_out"] = [{"reason": reason, "contenders": names} for reason, names in sorted(left_out.items())]
    return state


def _run(cell: Mapping[str, Any], currency: str, view: str) -> Run | str:
    """The cell's run in this currency, or why it has none."""
    points = cell["trajectory"]
    if not points:
        return "no trajectory in its records: not trained step by step, or by an older version"
    if any(point[currency] is None for point in points):
        return f"no {currency} at its trajectory points: trained by an older version"
    # a search divides one share: what its other candidates trained is training of this contender
    searched = (cell.get("search") or {}).get(currency, 0.0)
    if searched is None:
        return "the seconds of its search were not measured"
    before = 0.0 if view == "training" else cell["before"][currency]
    if before is None:
        return "the seconds of its data or its parent were not measured"
    before += searched
    spent = tuple((point[currency], point["fvu"], point["l0"]) for point in points if point[currency] > 0)
    if not spent:
        return f"no {currency} at its trajectory points: nothing was spent by then"
    return Run(before, spent, searched > 0)


def _not_begun(runs: Collection[Run], currency: str) -> str:
    before = min(run.before for run in runs)
    noted = "nothing of its own training was noted by then"
    what = "data, parent and search" if any(run.searched for run in runs) else "data and parent"
    return f"{noted}: its {what} alone cost {spend_text(before, currency)}" if before else noted


def _levels(
    rows: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Mapping[int, Run]],
    spend: float,
    levels: Sequence[float],
    machines: Mapping[str, Sequence[str]],
) -> Iterator[dict[str, Any]]:
    """Ranks by FVU at each sparsity level, within each training dataset; levels at which nobody stands are left out."""
    by_data: dict[tuple[str, ...], dict[str, Curve]] = defaultdict(dict)
    for name, members in curve_families(rows).items():
        curve = _curve(members, runs, spend)
        if curve.points:
            by_data[tuple(sorted({f"{row['training_dataset']}\n{row['training_recipe']}" for row in members}))][
                name
            ] = curve
    mixed = "seconds of different machines: " + "; ".join(f"{key} {', '.join(v)}" for key, v in machines.items())
    for level in levels:
        groups, absent = [], []
        for data, curves in sorted(by_data.items(), key=lambda item: (-len(item[1]), item[0])):
            refusal = mixed if machines else _ALONE if len(curves) == 1 and len(by_data) > 1 else None
            found = ranking(curves, level, "lower", refusal)
            there = [name for name in order_of(found) if found["contenders"][name]["l0"] is not None]
            absent += [name for name in order_of(found) if name not in there]
            if there:
                label = ", ".join(dict.fromkeys(item.split("\n")[0] for item in data))
                kept = {key: found[key] for key in ("contenders", "resolvable")}
                groups.append({"data": label, "order": there, **kept})
        if groups:
            yield {"l0": level, "groups": groups, "absent": absent}


def _curve(rows: Sequence[Mapping[str, Any]], runs: Mapping[str, Mapping[int, Run]], spend: float) -> Curve:
    points: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        for seed, run in runs[row["id"]].items():
            if (found := run.at(spend)) is not None:
                points[seed].append((found[1], found[0]))
    return Curve({seed: tuple(sorted(found)) for seed, found in sorted(points.items())})


def _machines(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Where these rows were trained, by what differs; empty when all were trained on one kind of machine."""
    found = {key: sorted({text for row in rows for text in row["versions"]["host"].get(key, [])}) for key in _MACHINE}
    return {key: texts for key, texts in found.items() if len(texts) > 1}
