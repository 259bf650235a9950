"""Columns of the tables, as the records name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_FIRST = ("sparsity", "reconstruction", "truth", "density")
_LAST = ("stability", "cost")


@dataclass(frozen=True)
class TableColumn:
    """A metric's column (`saebench.api.Column`), or one of cost or size.

    Attributes:
        id: Metric id, or that of one of `COST` and `SIZE`.
        name: Heading below its family.
        family: Heading above it.
        alone: Heading where no family is printed.
        hint: One line that is shown on hover.
        decimals: Digits after the point.
        percent: A fraction that is printed as a percentage.
        main: Whether it belongs to the main table.
        terminal: Heading in the terminal; empty: not there.
        chart: `none`, `l0` or `dots`.
        replaces: Metrics whose columns are left out where every row has this one.
        direction: `lower`, `higher` or `neutral`.
        ranks: Whether contenders are ranked by it.
        scale: On which (`saebench.api.MetricInfo.scale`).
        group: Whether it is a metric of several cells (stability).
    """

    id: str
    name: str
    family: str
    alone: str = ""
    hint: str = ""
    decimals: int = 3
    percent: bool = False
    main: bool = True
    terminal: str = ""
    chart: str = "none"
    replaces: tuple[str, ...] = ()
    direction: str = "neutral"
    ranks: bool = False
    scale: str = "identity"
    group: bool = False

    @property
    def heading(self) -> str:
        """Name with its unit."""
        return f"{self.name} %" if self.percent else self.name

    @property
    def heading_alone(self) -> str:
        """Heading with its unit where no family is printed."""
        return f"{self.alone} %" if self.percent else self.alone


COST = (
    TableColumn(
        "cost:train",
        "training",
        "tokens",
        "training tokens",
        "tokens the contender itself was trained on; of a search, all its candidates",
    ),
    TableColumn(
        "cost:all",
        "all\N{NON-BREAKING HYPHEN}in",
        "tokens",
        "all\N{NON-BREAKING HYPHEN}in tokens",
        "everything it takes to have it alone: training, data making, and all of its parent",
    ),
)
D_SAE = TableColumn("size:d_sae", "d_sae", "size", "d_sae", "latents", terminal="d_sae")
SIZE = (
    D_SAE,
    TableColumn("size:stored-bytes", "stored", "size", "stored", "bytes of the checkpoint's tensors"),
)


def columns_of(cells: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]]) -> tuple[TableColumn, ...]:
    """Every column that these records name, in the order of the tables; of two with one id the first record's.

    Families are in a fixed order, those that saebench does not know before stability and cost.
    """
    found: dict[str, tuple[tuple[int, str, int, str], TableColumn]] = {}
    for group, records in ((False, cells), (True, groups)):
        for record in records:
            metrics = record["facts"].get("metric_info") or {}
            for id, given in (record.get("columns") or {}).items():
                if id not in found:
                    found[id] = _column(id, given, metrics.get(id) or {}, group)
    return (*(column for _, column in sorted(found.values(), key=lambda item: item[0])), *SIZE, *COST)


def _column(
    id: str, given: Mapping[str, Any], info: Mapping[str, Any], group: bool
) -> tuple[tuple[int, str, int, str], TableColumn]:
    family = info.get("family") or "other"
    rank = _FIRST.index(family) if family in _FIRST else len(_FIRST)
    rank = len(_FIRST) + 1 + _LAST.index(family) if family in _LAST else rank
    settings = {key: value for key, value in given.items() if key in TableColumn.__dataclass_fields__}
    column = TableColumn(
        **settings
        | {
            "id": id,
            "family": given.get("family") or family,
            "alone": given.get("alone") or given["name"],
            "hint": given.get("hint") or info.get("description") or "",
            "replaces": tuple(given.get("replaces") or ()),
            "direction": info.get("direction") or "neutral",
            "group": group,
        }
    )
    return (rank, family, given.get("place", 100), id), column
