"""What it takes to have each cell's SAE alone: the sum that its record calls `spent.all`, before anything runs.

Training, the language model's forwards for it, making its data, and all of that for its parent. What a plan cannot know
is left out: what making data costs that only its maker counts (retrieval), codes that are denser than aimed at, and
making the inference form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from saebench.plan.forecast.disk import row_bytes
from saebench.plan.forecast.work import bounded, made_tokens, whole_steps

if TYPE_CHECKING:
    from saebench.cells.cell import Cell
    from saebench.plan.forecast.memory import Needs
    from saebench.plan.forecast.rates import Rates


@dataclass(frozen=True)
class Spend:
    """Tokens, FLOPs and seconds."""

    tokens: int = 0
    flops: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        return Spend(self.tokens + other.tokens, self.flops + other.flops, self.seconds + other.seconds)


@dataclass(frozen=True)
class AllIn(Spend):
    """All of a cell; `paid` is what each dataset cost that it or an ancestor was trained on, by recipe."""

    paid: Mapping[str, Spend] = field(default_factory=dict)


def all_in(needs: Needs, rates: Rates, training: Mapping[str, tuple[float, int]]) -> dict[str, AllIn]:
    """By `cell_id`, for cells that come parents first; of an ancestor that is not among them nothing is known.

    Args:
        needs: From `gather`.
        rates: Of the machine.
        training: Seconds and FLOPs of each cell's own training.
    """
    read = {cell: cohort.tokens for cohorts, _ in needs.passes for cohort in cohorts for cell in cohort.cells}
    found: dict[str, AllIn] = {}
    for cell in needs.cells:
        seconds, flops = training[cell.cell_id]
        own = Spend(whole_steps(cell) if cell.trains else 0, flops, seconds) + _forward(cell, needs, rates)
        parent = found.get(cell.parent or "", AllIn())
        recipe, data = cell.dataset.recipe, _data(cell, read.get(cell.cell_id, cell.tokens), needs, rates)
        # what an ancestor made of the same dataset is not made again
        before = parent.paid.get(recipe, Spend())
        more = Spend(
            max(0, data.tokens - before.tokens),
            max(0, data.flops - before.flops),
            max(0.0, data.seconds - before.seconds),
        )
        total = own + more + parent
        found[cell.cell_id] = AllIn(total.tokens, total.flops, total.seconds, {**parent.paid, recipe: before + more})
    return found


def _forward(cell: Cell, needs: Needs, rates: Rates) -> Spend:
    """The model reads the tokens that are trained on: FLOPs and seconds, and no tokens of its own."""
    if not cell.trains:
        return Spend()
    tokens = whole_steps(cell)
    seconds = tokens * row_bytes(cell.d_in, cell.train.dtype, indexed=False) * rates.assumed.read_byte_s
    if cell.model is None:
        return Spend(seconds=seconds)
    facts = needs.facts.model(cell.model.id, cell.model.revision, cell.model.load)
    one = facts.forward_flops_per_token(cell.model.hookpoint)
    rows = bounded(tokens, cell.dataset, "train")  # a store is filled once, and read once an epoch
    return Spend(0, tokens * one, seconds + rows * one * rates.model(cell.model, facts).flop_s)


def _data(cell: Cell, tokens: int, needs: Needs, rates: Rates) -> Spend:
    """Making the data: reading it, and sampling the model for what that writes itself."""
    rate, rows = rates.dataset(cell.dataset, cell.model), bounded(tokens, cell.dataset, "train")
    reading = Spend(seconds=rate.open_s + rows * rate.token_s)
    if cell.model is None or not made_tokens(cell.dataset):
        return reading
    facts = needs.facts.model(cell.model.id, cell.model.revision, cell.model.load)
    sample_s = rates.model(cell.model, facts).sample_token_s
    return reading + Spend(rows, rows * facts.forward_flops_per_token(), rows * sample_s)
