"""Which metric specs score a suite: `core`, `extended` (all there are), or those that give the listed ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api.specs import CellMetricSpec, GroupMetricSpec
from saebench.base.near import hint
from saebench.cells.plan import SEEDS_ALONE
from saebench.config import Problems, Suite
from saebench.host import Catalog, Offer

ASPECTS = ("data_seed", "dataset", "entry", "hookpoint", "init_seed")
"""What the members of a group may differ in."""


@dataclass(frozen=True)
class MetricChoice:
    """Chosen offers, by name order."""

    cell: tuple[Offer[CellMetricSpec], ...]
    group: tuple[Offer[GroupMetricSpec], ...]

    @property
    def cell_versions(self) -> dict[str, str]:
        """Version by spec name."""
        return {offer.spec.name: offer.spec.version for offer in self.cell}

    @property
    def varied(self) -> list[tuple[str, ...]]:
        """Each set of aspects that some group metric varies, sorted; the init seed alone, which always forms groups, first."""
        return list(dict.fromkeys([SEEDS_ALONE, *sorted(tuple(sorted(offer.spec.vary)) for offer in self.group)]))

    def group_versions(self, vary: tuple[str, ...]) -> dict[str, str]:
        """Version by name of the specs that vary these aspects."""
        return {offer.spec.name: offer.spec.version for offer in self.group if tuple(sorted(offer.spec.vary)) == vary}


def choose_metrics(suite: Suite, catalog: Catalog, problems: Problems) -> MetricChoice:
    """Reads the suite's `metrics`; unknown ids, and group metrics that vary what cannot be varied, are added as problems.

    Cell metrics without an id of their own make per-latent arrays for group metrics, and come along with any of these.
    """
    cell = sorted(catalog.cell_metrics(), key=lambda offer: offer.spec.name)
    group = sorted(catalog.group_metrics(), key=lambda offer: offer.spec.name)
    wanted = suite.config.metrics
    known = [*_ids(cell), *_ids(group)]
    if not isinstance(wanted, str):
        for i, name in enumerate(wanted):
            if name not in known:
                problems.add(("metrics", i), f"no metric named {name!r}. {hint(name, known)}")

    def taken(offer: Offer[Any]) -> bool:
        if isinstance(wanted, str):
            return wanted == "extended" or bool(offer.spec.core)
        return any(info.id in wanted for info in offer.spec.provides)

    groups = tuple(filter(taken, group))
    for offer in groups:
        if not offer.spec.vary or not offer.spec.vary <= set(ASPECTS):
            found = ", ".join(sorted(offer.spec.vary)) or "nothing"
            problems.line(
                f"group metric '{offer.spec.name}' varies {found}; allowed are {', '.join(ASPECTS)}. Mend it."
            )
    cells = (offer for offer in cell if taken(offer) or (groups and offer.spec.core and not offer.spec.provides))
    return MetricChoice(tuple(cells), groups)


def _ids(offers: Sequence[Offer[Any]]) -> list[str]:
    return [info.id for offer in offers for info in offer.spec.provides]
