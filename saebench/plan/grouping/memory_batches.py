"""Which cells of a pass train side by side: no child with its parent, and no more than memory holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from saebench.api.specs import Cost
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.host.build import cell_cost

FREE_SHARE = 0.5
"""Share of the free memory that the cells of one pass may take; the language model, batches and the store's pages need some too."""


def split_by_parents(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells in waves: each after the wave that holds its parent, as early as may be. `cells` come parents first."""
    depth: dict[str, int] = {}
    for cell in cells:
        depth[cell.cell_id] = depth[cell.parent] + 1 if cell.parent in depth and cell.parent is not None else 0
    return [
        [cell for cell in cells if depth[cell.cell_id] == wave] for wave in range(max(depth.values(), default=-1) + 1)
    ]


def split_by_memory(cells: Sequence[Cell], cost: Callable[[Cell], Cost | None], limit_bytes: int) -> list[list[Cell]]:
    """Cells in chunks, in order, that fit into memory together; a chunk holds at least one.

    Parameters, gradients and moments of all cells lie in memory at once, the workspace of a step only of one.

    Args:
        cells: To train side by side.
        cost: None where it cannot be told; such a cell counts nothing (it will fail when it begins).
        limit_bytes: What a chunk may take.
    """
    chunks: list[list[Cell]] = []
    held = workspace = 0
    for cell in cells:
        price = cost(cell)
        own = 0 if price is None else price.training_memory_bytes(0)
        step = 0 if price is None else price.training_memory_bytes(cell.train.batch) - own
        if not chunks or held + own + max(workspace, step) > limit_bytes:
            chunks.append([])
            held = workspace = 0
        chunks[-1].append(cell)
        held, workspace = held + own, max(workspace, step)
    return chunks


def cost_of(cell: Cell, catalog: Catalog) -> Cost | None:
    """The cell's stand-alone cost; None where its plugin cannot tell."""
    try:
        return cell_cost(cell, catalog)
    except Exception:
        return None


def waves(cells: Sequence[Cell], catalog: Catalog, limit_bytes: int, trained: Collection[str] = ()) -> list[list[Cell]]:
    """Cells of a pass in groups to train one after the other, in each of which they train side by side.

    Args:
        cells: Parents first.
        catalog: Installed plugins.
        limit_bytes: Memory for the cells of one group.
        trained: `cell_id`s whose weights stand already: they need no memory, and children need not wait for them.
    """
    waiting = [cell for cell in cells if cell.cell_id not in trained]

    def cost(cell: Cell) -> Cost | None:
        return cost_of(cell, catalog)

    return [chunk for wave in split_by_parents(waiting) for chunk in split_by_memory(wave, cost, limit_bytes)]


def memory_limit(device: str, memory_gb: float | None) -> int:
    """Bytes that the cells of one pass may take together: half of what is free, and no more than the budget's `memory_gb`."""
    limit = int(FREE_SHARE * _free_bytes(device))
    return min(limit, int(memory_gb * 1e9)) if memory_gb else limit


def _free_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def cap_memory(device: str, n_bytes: int) -> None:
    """Makes `memory_gb` a hard limit of this process on a CUDA device."""
    import torch

    total = torch.cuda.get_device_properties(torch.device(device)).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, n_bytes / total), torch.device(device))
