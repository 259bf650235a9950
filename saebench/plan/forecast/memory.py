"""How much memory a run takes: what cells train with side by side, and what a group holds while it is scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from saebench.api.specs import Cost
from saebench.cells.cell import Cell
from saebench.cells.plan import Group
from saebench.host import Catalog
from saebench.plan.grouping.groups import GROUP_CODES_BYTES, GROUP_TOKENS, reads_codes
from saebench.plan.grouping.memory_batches import memory_batches, memory_together

if TYPE_CHECKING:
    from saebench.lm.book import ModelBook

BASE_BYTES = 1_500_000_000
"""Interpreter, torch, transformers, log-probabilities of held-out text, mapped stores: what the quickstart took."""
BARE_BYTES = 500_000_000
"""The same without a language model: interpreter and torch."""
PAIR_SQUARE_BYTES, PAIR_MOST_BYTES = 90, 700_000_000
"""Matching two dictionaries of n latents: the first times n^2, at most the second (measured at 1,024 to 8,192)."""
CODE_BYTES = 8
"""An active latent of a token, as the codes of a group are kept."""


def most_bytes(
    cells: Sequence[Cell],
    passes: Sequence[Sequence[Cell]],
    groups: Sequence[tuple[Group, Sequence[Cell]]],
    costs: Mapping[str, Cost],
    catalog: Catalog,
    facts: ModelBook,
    limit_bytes: int | None,
) -> tuple[int, int]:
    """Most that the process takes, and most of it that is on the device.

    The language model is in memory with cells that train, or with a group that is compared.

    Args:
        cells: All of them.
        passes: Those of each pass, parents first.
        groups: With their members among the cells.
        costs: By `cell_id`.
        limit_bytes: What cells that are trained together may take; None: there is no limit.
    """
    models = {cell.model.digest: cell.model for cell in cells if cell.model is not None}
    # one model is in memory at a time
    model = max(
        (
            int(use.load.parameter_bytes * facts.model(use.id, use.revision, use.load).n_parameters)
            for use in models.values()
        ),
        default=0,
    )

    def cost(cell: Cell) -> Cost:
        return costs[cell.cell_id]

    batches = (batch for members in passes for batch in memory_batches(members, cost, limit_bytes))
    training = max((memory_together(batch, cost) for batch in batches), default=0)
    held = [sum(cost(cell).stored_bytes for cell in members) for _, members in groups]
    beside = [_comparing_bytes(group, members, catalog) for group, members in groups]
    scoring = [size + more for size, more in zip(held, beside, strict=True)]
    base = BASE_BYTES if models else BARE_BYTES
    return base + model + max([training, *scoring]), model + max([training, *held])


def _comparing_bytes(group: Group, members: Sequence[Cell], catalog: Catalog) -> int:
    """What comparing a group takes beside its members: the matching of a pair, and codes if a metric reads them."""
    if len(members) < 2:
        return 0
    pair = min(PAIR_MOST_BYTES, PAIR_SQUARE_BYTES * max(cell.d_sae for cell in members) ** 2)
    if not reads_codes(group, catalog):
        return pair
    active = (
        min(cell.evaluation.tokens, GROUP_TOKENS) * (cell.d_sae if cell.expected_l0 is None else cell.expected_l0)
        for cell in members
    )
    return pair + min(GROUP_CODES_BYTES, int(CODE_BYTES * sum(active)))
