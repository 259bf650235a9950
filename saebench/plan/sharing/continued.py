"""The control of a child: its parent, trained on by the same spend with the parent's own data and loss.

A child has had its parent's training and its own. What its data and its objective are worth is seen beside a parent
that had as much: same weights to start from, same schedule, nothing new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from saebench.cells.labels import fitted
from saebench.plan.contenders.contender import Contender
from saebench.plan.sharing.budget import same_spend

SUFFIX = "-continued"


def continued_contenders(
    contenders: Sequence[Contender], tokens: Mapping[Contender, int], primary: str
) -> tuple[dict[Contender, tuple[Contender, int]], tuple[str, ...]]:
    """Controls of all children, each with a child that it stands beside and its allotment.

    One serves all children that start from one parent with equal spend and settings. Of a child that is searched for
    it has the whole search's share and the settings of the first candidate.

    Args:
        contenders: Of the suite.
        tokens: Their allotments.
        primary: The budget's currency.

    Returns:
        The controls, and remarks on children that have none.
    """
    taken = {contender.entry for contender in contenders}
    there = {_settings(contender): contender for contender in contenders if contender.parent is not None}
    made: dict[tuple[object, ...], tuple[Contender, Contender, int]] = {}
    searched: set[tuple[object, ...]] = set()
    remarks: list[str] = []
    for child in contenders:
        parent = child.parent
        if parent is None:
            continue
        if child.tune is not None:
            search = (child.entry, parent, child.tune.point)
            if search in searched:
                continue
            searched.add(search)
        control = replace(
            parent,
            index=None,
            entry=parent.entry + SUFFIX,
            sweep=dict(parent.sweep),
            where=child.where,
            train=child.train,
            parent=parent,
            control=True,
            continued=True,
        )
        if (same := there.get(_settings(control))) is not None:
            if same.entry != child.entry:
                remarks.append(
                    f"{control.entry}: {same.entry!r} is {parent.entry!r} trained on; there is no other one."
                )
        elif control.entry in taken:
            remarks.append(f"{control.entry} is left out: an entry has this name.")
        elif child.site.model is None and child.dataset is not parent.dataset:
            remarks.append(
                f"{control.entry} is left out: {child.entry!r} and {parent.entry!r} are scored on data of their own."
            )
        else:
            allotted = same_spend(child, control, tokens[child] * child.n_candidates, primary)
            made.setdefault((parent, child.train, allotted), (control, child, allotted))
    found = [kept for kept in made.values() if kept[2] >= kept[0].train.batch]
    several = Counter(control.parent for control, _, _ in found)
    points = [_point(control, child) if several[control.parent] > 1 else control.point for control, child, _ in found]
    named: dict[Contender, tuple[Contender, int]] = {}
    for (control, child, allotted), point in zip(found, points, strict=True):
        alike = sum(
            one.parent is control.parent for (one, _, _), other in zip(found, points, strict=True) if other == point
        )
        label = f"{point}-{child.point}" if alike > 1 else point
        named[replace(control, point=fitted(label))] = child, allotted
    return named, tuple(dict.fromkeys(remarks))


def _point(control: Contender, child: Contender) -> str:
    """The parent's point, and whose control it is of several."""
    return f"as-{child.entry}" if control.point == "default" else f"{control.point}-as-{child.entry}"


def _settings(one: Contender) -> tuple[object, ...]:
    """Equal for contenders that train alike from one parent."""
    architecture = one.architecture
    base = architecture.base.use if architecture.base is not None else None
    return (one.parent, repr(architecture.use), repr(base), one.dataset.name, one.site.key, one.train)
