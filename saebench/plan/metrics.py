"""Which metric specs score a suite: `core`, `extended` (all there are), or those that give the listed ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api.specs import CellMetricSpec, GroupMetricSpec
from saebench.config import Problems, Suite
from saebench.config.near import hint
from saebench.host import Catalog, Offer


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
    def group_versions(self) -> dict[str, str]:
        """Version by spec name."""
        return {offer.spec.name: offer.spec.version for offer in self.group}


def choose_metrics(suite: Suite, catalog: Catalog, problems: Problems) -> MetricChoice:
    """Reads the suite's `metrics`; unknown ids are added as problems. Groups vary the init seed only."""
    cell = sorted(catalog.cell_metrics(), key=lambda offer: offer.spec.name)
    group = sorted(
        (offer for offer in catalog.group_metrics() if offer.spec.vary == {"init_seed"}),
        key=lambda offer: offer.spec.name,
    )
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

    return MetricChoice(tuple(filter(taken, cell)), tuple(filter(taken, group)))


def _ids(offers: Sequence[Offer[Any]]) -> list[str]:
    return [info.id for offer in offers for info in offer.spec.provides]
