"""How many bytes a run writes: sizes of rows, tokens, records and pages, as runs were seen to write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saebench.api.specs import Cost
from saebench.cells.cell import Cell
from saebench.cells.plan import Cohort, Group
from saebench.host import Catalog
from saebench.plan.contenders.metrics import streams_of

VALUE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
INDEX_BYTES, SEQUENCE_BYTES = 16, 4
"""Token id, position, sequence and document of each stored row; where there are no tokens, the sequence alone."""
MANIFEST_BYTES = 5_000
"""Manifest of a store."""
RECORD_BYTES, METRIC_BYTES, PART_BYTES = 6_500, 650, 250
"""A record without metrics, one metric in it, and one of its values (a dataset under an evaluation seed)."""
GROUP_RECORD_BYTES = 2_000
"""A group's record without metrics."""
CONTEXT_BYTES = 65_000
"""Strongest contexts of 20 latents."""
CELL_BYTES = 8_000
"""A cell in plan.json and in its checkpoint's sae.json."""
LATENT_BYTES = 12
"""Per-latent arrays of a cell."""
PAGES_BYTES, CURVE_BYTES, PAGE_SHARE, PAGE_CONTEXT_SHARE = 970_000, 55_000, 0.85, 0.4
"""A leaderboard without data, what an entry at a site adds (charts), and how much of each byte of a record it repeats:
of the rest, and of contexts."""
SNAPSHOT_S, SNAPSHOT_VALUE_BYTES = 60.0, 12
"""Predicted training from which on snapshots are counted (half of the time to the first); a weight and its moments."""


def row_bytes(d: int, dtype: str, *, indexed: bool) -> int:
    """A stored row of `d` values; `indexed`: with the token it comes from."""
    return d * VALUE_BYTES[dtype] + (INDEX_BYTES if indexed else SEQUENCE_BYTES)


def token_bytes(n_tokens: int, context: int) -> int:
    """Stored windows of tokens."""
    from saebench.activations.quota import (
        window_bytes,  # imports torch, which a command that measures nothing does without
    )

    return window_bytes(n_tokens, context)


def written_bytes(cells: Sequence[Cell], groups: Sequence[Group], catalog: Catalog) -> tuple[int, int]:
    """Records with all that belongs to them (plan, arrays), and the leaderboard made from them, about."""
    if not cells:
        return 0, 0
    contexts = sum(_context_bytes(cell, catalog) for cell in cells)
    records = contexts + sum(_own_bytes(cell, catalog) for cell in cells)
    for group in groups:
        ids = sum(len(catalog.group_metric(name).spec.provides) for name in group.metrics)
        records += GROUP_RECORD_BYTES + ids * (METRIC_BYTES + PART_BYTES)
    curves = len({(cell.entry, cell.model and (cell.model.digest, cell.site), cell.dataset.name) for cell in cells})
    pages = PAGES_BYTES + CURVE_BYTES * curves + PAGE_SHARE * (records - contexts) + PAGE_CONTEXT_SHARE * contexts
    return records + sum(CELL_BYTES + LATENT_BYTES * cell.d_sae for cell in cells), int(pages)


def record_bytes(cell: Cell, catalog: Catalog) -> int:
    """A cell's record with its contexts, its part of the plan, and its arrays."""
    return _own_bytes(cell, catalog) + _context_bytes(cell, catalog) + CELL_BYTES + LATENT_BYTES * cell.d_sae


def _own_bytes(cell: Cell, catalog: Catalog) -> int:
    ids = sum(len(catalog.cell_metric(name).spec.provides) for name in cell.metrics)
    parts = len(cell.evaluation_datasets) * len(cell.evaluation.seeds)
    return RECORD_BYTES + ids * (METRIC_BYTES + PART_BYTES * parts)


def _context_bytes(cell: Cell, catalog: Catalog) -> int:
    """The strongest contexts in a cell's record."""
    return CONTEXT_BYTES if cell.model is not None and "density" in streams_of(cell, catalog) else 0


def snapshot_bytes(passes: Sequence[Sequence[Cell]], costs: Mapping[str, Cost], training_s: float) -> int:
    """Most that snapshots of one pass take. They are replaced cell by cell: the old one goes last."""
    if training_s <= SNAPSHOT_S:
        return 0
    trained = ([costs[cell.cell_id].n_parameters for cell in cells if cell.trains] for cells in passes)
    return SNAPSHOT_VALUE_BYTES * max((sum(sizes) + max(sizes, default=0) for sizes in trained), default=0)


def within_quota(cohorts: Sequence[Cohort], store_bytes: int) -> int:
    """Bytes of activation stores, at most the suite's quota."""
    quota = min((cohort.activations.quota_gb for cohort in cohorts if cohort.activations.quota_gb), default=None)
    return store_bytes if quota is None else int(min(store_bytes, quota * 1e9))
