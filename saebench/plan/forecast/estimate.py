"""What a plan will cost, before anything runs: tokens, FLOPs, seconds, disk and memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from saebench.cells.cell import Cell
from saebench.cells.plan import CellEstimate, Cohort, Estimate, Group
from saebench.host import Catalog
from saebench.host.build import cell_cost
from saebench.plan.forecast import disk
from saebench.plan.forecast.all_in import all_in
from saebench.plan.forecast.memory import Needs
from saebench.plan.forecast.rates import Rates
from saebench.plan.forecast.work import Work, whole_steps
from saebench.plan.grouping.memory_batches import memory_together
from saebench.plan.grouping.passes import form_passes

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook


def gather(
    cells: Sequence[Cell],
    cohorts: Sequence[Cohort],
    groups: Sequence[Group],
    *,
    catalog: Catalog,
    facts: ModelBook,
    free_bytes: int | None = None,
    memory_gb: float | None = None,
    compiles: bool = False,
) -> Needs:
    """Some cells of a plan in their passes and groups; cohorts and groups without any of them are left out.

    Args:
        cells, cohorts, groups: Of the plan.
        catalog: Installed plugins: costs, and what streams metrics read.
        facts: Answers what is asked of language models.
        free_bytes: Memory that is free on the device; cells that do not fit together are trained one after another.
        memory_gb: The budget's.
        compiles: Whether encoder products run in bfloat16 on a CPU.
    """
    by_id = {cell.cell_id: cell for cell in cells}
    passes = []
    for together in form_passes(cohorts):
        here = [cohort for cohort in together if any(cell in by_id for cell in cohort.cells)]
        if here:
            passes.append((here, [by_id[cell] for cohort in here for cell in cohort.cells if cell in by_id]))
    members = [(group, [by_id[cell] for cell in group.cells if cell in by_id]) for group in groups]
    return Needs(
        cells,
        passes,
        [(group, found) for group, found in members if found],
        {cell.cell_id: cell_cost(cell, catalog) for cell in cells},
        catalog,
        facts,
        free_bytes,
        memory_gb,
        compiles,
    )


def predict(needs: Needs, rates: Rates) -> Estimate:
    """Totals over the cells, and what each takes by itself.

    Args:
        needs: From `gather`.
        rates: Of the machine.
    """
    cells, costs, catalog = needs.cells, needs.costs, needs.catalog
    work = Work(catalog, needs.facts, rates, costs)
    each: dict[str, CellEstimate] = {}
    for cohorts, together in needs.passes:
        work.data(cohorts, together)
    training = {cell.cell_id: work.training(cell) for cell in cells}
    alone = all_in(needs, rates, training)
    for cell in cells:
        work.held_out(cell)
        (training_s, flops), whole = training[cell.cell_id], alone[cell.cell_id]
        each[cell.cell_id] = CellEstimate(
            round(training_s, 3),
            round(work.scoring(cell), 3),
            flops,
            whole.tokens,
            whole.flops,
            round(whole.seconds, 3),
            memory_together([cell], lambda one: costs[one.cell_id]),
            costs[cell.cell_id].stored_bytes + disk.record_bytes(cell, catalog),
        )
    for group, members in needs.groups:
        work.group(group, members)
    if cells:
        work.fixed(cells)
    phases = {kind: round(seconds, 3) for kind, seconds in work.phases.items()}
    stores = disk.within_quota([one for cohorts, _ in needs.passes for one in cohorts], work.store_bytes)
    records, pages = disk.written_bytes(cells, [group for group, _ in needs.groups], catalog)
    checkpoints = sum(cost.stored_bytes for cost in costs.values())
    snapshots = disk.snapshot_bytes([together for _, together in needs.passes], costs, work.phases["training"])
    memory = needs.memory()
    return Estimate(
        train_tokens=sum(whole_steps(cell) for cell in cells if cell.trains),
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
        memory_bytes=memory.process,
        device_memory_bytes=memory.device,
        memory_parts=memory.parts(),
        basis=rates.basis(),
        cells=each,
    )
