"""What a plan will cost, before anything runs: tokens, FLOPs, seconds, disk and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saebench.cells.cell import Cell
from saebench.cells.plan import Cohort, Estimate, Group
from saebench.host import Catalog
from saebench.host.build import cell_cost
from saebench.plan.forecast import disk, memory
from saebench.plan.forecast.rates import Rates
from saebench.plan.forecast.work import Work
from saebench.plan.grouping.passes import form_passes

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook


def predict(
    cells: Sequence[Cell],
    cohorts: Sequence[Cohort],
    groups: Sequence[Group],
    *,
    catalog: Catalog,
    facts: ModelBook,
    rates: Rates,
    memory_limit_bytes: int | None = None,
) -> Estimate:
    """Totals over some cells of a plan; cohorts and groups without any of them count nothing.

    Args:
        cells, cohorts, groups: Of the plan.
        catalog: Installed plugins: costs, and what streams metrics read.
        facts: Answers what is asked of language models.
        rates: Of this machine.
        memory_limit_bytes: What cells that are trained together may take; more are trained one after another.
    """
    by_id = {cell.cell_id: cell for cell in cells}
    costs = {cell.cell_id: cell_cost(cell, catalog) for cell in cells}
    work = Work(catalog, facts, rates, costs)
    passes = []
    for together in form_passes(cohorts):
        here = [cohort for cohort in together if any(cell in by_id for cell in cohort.cells)]
        if here:
            passes.append([by_id[cell] for cohort in here for cell in cohort.cells if cell in by_id])
            work.data(here, passes[-1])
    for cell in cells:
        work.held_out(cell)
        work.training(cell)
        work.scoring(cell)
    members = [(group, [by_id[cell] for cell in group.cells if cell in by_id]) for group in groups]
    members = [(group, found) for group, found in members if found]
    for group, found in members:
        work.group(group, found)
    if cells:
        work.fixed(cells)
    phases = {kind: round(seconds, 3) for kind, seconds in work.phases.items()}
    stores = disk.within_quota(cohorts, work.store_bytes)
    records, pages = disk.written_bytes(cells, [group for group, _ in members], catalog)
    checkpoints = sum(cost.stored_bytes for cost in costs.values())
    snapshots = disk.snapshot_bytes(passes, costs, work.phases["training"])
    process, device = memory.most_bytes(cells, passes, members, costs, catalog, facts, memory_limit_bytes)
    return Estimate(
        train_tokens=sum(cell.tokens for cell in cells if not cell.control),
        train_flops=work.train_flops,
        forward_flops=work.forward_flops,
        seconds=round(sum(phases.values()), 3),
        phases=phases,
        disk_bytes=stores + checkpoints + snapshots + records + pages,
        store_bytes=stores,
        checkpoint_bytes=checkpoints,
        record_bytes=records,
        page_bytes=pages,
        snapshot_bytes=snapshots,
        memory_bytes=process,
        device_memory_bytes=device,
        basis=rates.basis(),
    )
