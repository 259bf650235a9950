"""Groups: cells equal but for what a group metric varies: the init seed alone, or the dataset or another aspect too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saebench.base.canonical import digest
from saebench.cells.cell import Cell
from saebench.cells.plan import SEEDS_ALONE, Group
from saebench.host import Catalog
from saebench.plan.contenders.metrics import MetricChoice
from saebench.plan.grouping.cells import cell_identity

GROUP_TOKENS = 65_536
"""Most held-out tokens that the members of a group are compared on."""
GROUP_CODES_BYTES = 1_000_000_000
"""Most that the codes of one group's members take, which are kept in memory."""


def form_groups(cells: Sequence[Cell], metrics: MetricChoice) -> list[Group]:
    """For each set of aspects that a chosen group metric varies: one group for each set of cells equal but for these.

    Groups of seeds alone come first; one is formed for a lone seed too (and its values are null with a reason). Any
    other group is formed where each of its aspects, the init seed aside, takes two values among cells that are scored
    on the same first evaluation dataset and have equal allotments. Controls form none.
    """
    by_id = {cell.cell_id: cell for cell in cells}
    ranked = [cell for cell in cells if not cell.control]
    groups = []
    for vary in metrics.varied:
        members: dict[str, list[Cell]] = {}
        for cell in ranked:
            members.setdefault(_key(cell, vary, by_id), []).append(cell)
        for key, alike in members.items():
            groups += [
                _group(code, found, vary, metrics.group_versions(vary))
                for code, found in _apart(key, alike, vary, by_id).items()
                if vary == SEEDS_ALONE or _varies(found, vary)
            ]
    return groups


def reads_codes(group: Group, catalog: Catalog) -> bool:
    """Whether some metric of a group reads what its members encode on held-out data."""
    return any(catalog.group_metric(name).spec.streams for name in group.metrics)


def member_label(cell: Cell, vary: Sequence[str]) -> str:
    """What names a cell among the members of its group: `s0`; with the dataset varied too `docs s0`."""
    return " ".join(str(value) for name, value in _aspects(cell).items() if name in vary)


def _group(key: str, cells: Sequence[Cell], vary: tuple[str, ...], versions: Mapping[str, str]) -> Group:
    # an entry with one operating point calls it `default`; where another entry sweeps over it, its label says more
    point = next((cell.point for cell in cells if cell.point != "default"), cells[0].point)
    names = list(dict.fromkeys(cell.part.architecture for cell in cells))
    stem = point if vary == SEEDS_ALONE else f"{names[0] if len(names) == 1 else 'several'}-{point}"
    return Group(
        key=key,
        suite=cells[0].suite,
        entry=" + ".join(dict.fromkeys(cell.entry for cell in cells)),
        point=point,
        name=f"{stem}-{key[:8]}",
        cells=tuple(cell.cell_id for cell in cells),
        metrics=versions,
        vary=vary,
    )


def _aspects(cell: Cell) -> dict[str, str]:
    """The value of each aspect that a group may vary, as a reader would call it."""
    return {
        "entry": cell.entry,
        "hookpoint": cell.model.hookpoint_name if cell.model is not None else "-",
        "dataset": cell.dataset.name,
        "data_seed": f"d{cell.data_seed}",
        "init_seed": f"s{cell.init_seed}",
    }


def _varies(cells: Sequence[Cell], vary: Sequence[str]) -> bool:
    return all(len({_aspects(cell)[name] for cell in cells}) > 1 for name in vary if name != "init_seed")


def _key(cell: Cell, vary: tuple[str, ...], by_id: Mapping[str, Cell]) -> str:
    if vary == SEEDS_ALONE:
        return cell.group
    return digest(
        {
            "vary": list(vary),
            "cell": _identity(cell, vary, by_id),
            "width": [cell.d_in, cell.d_out],
            "evaluation": cell.evaluation_datasets[0].recipe,
        }
    )


def _identity(cell: Cell, vary: Sequence[str], by_id: Mapping[str, Cell]) -> dict[str, Any]:
    """`cell_identity` without what is varied; a parent counts without that too, so that parents form a group."""
    identity = cell_identity(cell)
    if cell.parent is not None:
        identity["parent"] = digest(_identity(by_id[cell.parent], vary, by_id))
    for name in vary:
        if name == "hookpoint":
            identity["model"] = {**(identity["model"] or {}), "hookpoint": None}
        elif name == "entry":
            # entries are compared point by point, whatever they are made of
            identity |= {"architecture": None, "base": None, "train": None, "parent": None, "point": cell.point}
        else:
            identity[name] = None
    return identity


def _apart(
    key: str, cells: Sequence[Cell], vary: Sequence[str], by_id: Mapping[str, Cell]
) -> dict[str, Sequence[Cell]]:
    """The same cells as one group or as several, by key, in none of which two cells agree in all that is varied.

    Two children of one dataset whose parents learnt from different ones agree so. Then those stay together whose
    ancestors learnt from the same datasets, apart from their own.
    """
    if len({member_label(cell, vary) for cell in cells}) == len(cells):
        return {key: cells}
    kinds: dict[str, list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(digest({"group": key, "ancestors": _ancestors(cell, by_id)}), []).append(cell)
    return dict(kinds)


def _ancestors(cell: Cell, by_id: Mapping[str, Cell]) -> list[str | None]:
    """Of each ancestor the recipe it learnt from; None where it is the cell's own."""
    found: list[str | None] = []
    here = cell
    while here.parent is not None:
        here = by_id[here.parent]
        found.append(here.dataset.recipe if here.dataset.recipe != cell.dataset.recipe else None)
    return found
