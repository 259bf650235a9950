"""Group records: what is scored over the seeds of one point together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from saebench.api.errors import SuiteError
from saebench.api.metrics import GroupMember
from saebench.artifacts import RunFolder, read_arrays, read_record, write_record
from saebench.execute.records import group_record
from saebench.plan.model import Cell, Group

if TYPE_CHECKING:
    from pathlib import Path

    from saebench.host import Catalog


def needs_scoring(
    path: Path, group: Group, cells: Sequence[Cell], statuses: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """False where a record of these very members, statuses and metric versions stands."""
    if not path.is_file():
        return True
    try:
        old = read_record(path, "group")["facts"]
    except SuiteError as error:
        say(f"{error} It is written anew now.")
        return True
    members = [(member["score_id"], member["status"]) for member in old["members"]]
    now = [(cell.score_id, statuses[cell.cell_id]) for cell in cells]
    return members != now or old["metric_versions"] != dict(group.metrics)


def run_group(
    group: Group,
    cells: Sequence[Cell],
    statuses: Mapping[str, str],
    run: RunFolder,
    catalog: Catalog,
    environment: Callable[[], dict[str, Any]],
) -> None:
    """Scores a group and writes its record.

    Args:
        group, cells, statuses: Its members and what became of them.
        run: Where checkpoints, arrays and the record stand.
        catalog: Installed plugins.
        environment: Called at the end: what the record says of machine and times.
    """
    from saebench.host.build import load_sae
    from saebench.score import score_group

    members = []
    for cell in cells:
        if statuses[cell.cell_id] == "ok":
            density = read_arrays(run.arrays(cell.cell_id)).get("density")
            members.append(
                GroupMember(
                    label=f"s{cell.init_seed}",
                    sae=load_sae(run.checkpoint(cell.cell_id), catalog),  # type: ignore[arg-type]
                    tags=frozenset(cell.tags),
                    dead=None if density is None else density == 0,
                )
            )
    missing = [f"s{cell.init_seed} ({statuses[cell.cell_id]})" for cell in cells if statuses[cell.cell_id] != "ok"]
    outcome = score_group(group, members, catalog, missing=missing)
    plugins = {name: catalog.group_metric(name).provenance() for name in group.metrics}
    path = run.group_record(group.suite, group.entry, group.name)
    write_record(path, group_record(group, list(cells), statuses, outcome, environment=environment(), plugins=plugins))
