"""Which cells of a pass train side by side: no child with its parent, and no more than memory holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from saebench.api.specs import Cost
from saebench.cells.cell import Cell
from saebench.cells.generations import generations
from saebench.host import Catalog
from saebench.host.build import cell_cost

FREE_SHARE = 0.5
"""Share of the free memory that the cells of one pass may take: model, batches and stores need some too."""
CostOf = Callable[[Cell], Cost | None]
"""The stand-alone cost of a cell; None where it is not known: such a cell counts nothing (it will fail)."""


def memory_batches(
    cells: Sequence[Cell], cost: CostOf, limit_bytes: int | None, trained: Collection[str] = ()
) -> list[list[Cell]]:
    """Cells of a pass in batches to train one after the other; those of one batch are trained side by side.

    Args:
        cells: Parents first. Each comes after the batch of its parent.
        cost: See `CostOf`.
        limit_bytes: Memory for the cells of one batch; a batch holds at least one cell. None: there is no limit.
        trained: `cell_id`s whose weights exist already: they need no memory, and children need not wait for them.
    """
    waiting = [cell for cell in cells if cell.cell_id not in trained]
    depth = generations(waiting)
    batches: list[list[Cell]] = []
    for generation in range(max(depth.values(), default=-1) + 1):
        batches.append([])
        held = workspace = 0
        for cell in waiting:
            if depth[cell.cell_id] != generation:
                continue
            own, step = _needs(cell, cost)
            if batches[-1] and limit_bytes is not None and held + own + max(workspace, step) > limit_bytes:
                batches.append([])
                held = workspace = 0
            batches[-1].append(cell)
            held, workspace = held + own, max(workspace, step)
    return batches


def memory_together(cells: Sequence[Cell], cost: CostOf) -> int:
    """Bytes that cells take side by side: what each holds, and the workspace of the one whose turn it is."""
    return held_bytes(cells, cost) + max((_needs(cell, cost)[1] for cell in cells), default=0)


def held_bytes(cells: Sequence[Cell], cost: CostOf) -> int:
    """Bytes that cells hold throughout their training: weights, gradients and moments; controls weights alone."""
    return sum(_needs(cell, cost)[0] for cell in cells)


def _needs(cell: Cell, cost: CostOf) -> tuple[int, int]:
    """See `held_bytes`; and the workspace of a step."""
    price = cost(cell)
    if price is None:
        return 0, 0
    step = price.step_workspace_bytes(cell.train.batch)
    held = price.training_memory_bytes(cell.train.batch) - step if cell.trains else price.stored_bytes
    return held, step


def cost_of(cell: Cell, catalog: Catalog) -> Cost | None:
    """The cell's stand-alone cost; None where its plugin cannot tell."""
    try:
        return cell_cost(cell, catalog)
    except Exception:  # noqa: BLE001 - a plugin's own code
        return None


def memory_limit(device: str, memory_gb: float | None) -> int:
    """Bytes that the cells of one pass may take together: half of what is free, at most the budget's `memory_gb`."""
    return share_of(free_bytes(device), memory_gb)


def share_of(n_bytes: int, memory_gb: float | None) -> int:
    """`memory_limit` where so much is free."""
    limit = int(FREE_SHARE * n_bytes)
    return min(limit, int(memory_gb * 1e9)) if memory_gb else limit


def free_bytes(device: str) -> int:
    """What is free on a device, or in the machine."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return total_bytes(device)


def total_bytes(device: str) -> int:
    """What a device, or the machine, has in all."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@contextmanager
def memory_capped(device: str, n_bytes: int | None) -> Iterator[None]:
    """At most so many bytes of a CUDA device beyond what is held there now; elsewhere, and with None, no limit.

    The language model is held by then. It is no part of a cell, so a limit of cells is not one of the process.
    """
    if n_bytes is None or not device.startswith("cuda"):
        yield
        return
    import torch

    index = torch.device(device).index  # `cuda` alone has none, and torch takes no such device here
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved(index) + n_bytes) / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)
