"""From the suite's shared budget to a token allotment for every arm.

Seeds and sweep points never divide a share; `pool: true` divides the figure equally among the entries. FLOPs become tokens through
the architecture's own `Cost`, at the L0 that its config aims at, so that a cell stays deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api.specs import Cost
from saebench.config import Problems, Suite
from saebench.plan.arms import Arm
from saebench.plan.datasets import DatasetBook


@dataclass(frozen=True)
class Shares:
    """Allotments in tokens by arm, the resolved budget as the plan records it, and remarks."""

    tokens: Mapping[Arm, int]
    budget: Mapping[str, Any]
    warnings: tuple[str, ...]


def share_out(suite: Suite, arms: Sequence[Arm], book: DatasetBook, problems: Problems) -> Shares:
    """Allots tokens to every arm; adds a problem for each entry whose share is too small or used up."""
    budget = suite.config.budget
    n_entries = len(suite.config.entries)
    total = getattr(budget, budget.primary)
    resolved = {**budget.model_dump(), "entries": n_entries, "share": total, "total": total}
    if budget.primary == "device_seconds":
        problems.add(
            ("budget", "primary"),
            "device_seconds needs a calibration of this machine, which comes with the next version (saebench bench-backends). Use tokens or flops.",
        )
        return Shares({}, resolved, ())
    share = int(total) // n_entries if budget.pool else int(total)
    resolved["share"] = share
    if not budget.pool:
        resolved["total"] = share * n_entries
    warnings = [
        f"budget.{other} is given but the primary is {budget.primary}: {other} does not stop a cell."
        for other in ("tokens", "flops", "device_seconds")
        if other != budget.primary and getattr(budget, other) is not None
    ]
    tokens: dict[Arm, int] = {}
    spent: dict[Arm, int] = {}
    for arm in arms:
        if arm.parent is not None and arm.parent not in tokens:
            continue  # its parent's share has a problem, told already
        charged = _charged(arm, spent, book, budget.primary) if budget.counts == "all" else 0
        left = share - charged
        allotted = left if budget.primary == "tokens" else tokens_for_flops(left, arm.cost, arm.train.batch, arm.d_sae)
        if charged and allotted < arm.train.batch:
            problems.add(
                ("entries", arm.index or 0),
                f"making its data and its parent cost {charged:,} {budget.primary} of its share of {share:,}, and `counts: all` makes them count; "
                f"what is left is under one batch of {arm.train.batch:,} tokens. Raise budget.{budget.primary} or use `counts: train`.",
            )
            continue
        if allotted < arm.train.batch:
            pooled = f" (the pool of {int(total):,} shared by {n_entries} entries)" if budget.pool else ""
            got = f"a share of {share:,} {budget.primary}{pooled}" + (
                f" gives {max(allotted, 0):,} tokens" if budget.primary == "flops" else ""
            )
            problems.add(
                ("budget", budget.primary),
                f"{got} but one batch of entries[{arm.index}] ({arm.entry}) is {arm.train.batch:,} tokens. Raise it or use a smaller batch.",
            )
            continue
        if budget.primary == "flops" and arm.cost.expected_l0 is None:
            warnings.append(
                f"entries[{arm.index}] ({arm.entry}) aims at no L0: its FLOPs are counted at all {arm.d_sae} latents, the most there can be."
            )
        if budget.memory_gb is not None and arm.cost.training_memory_bytes(arm.train.batch) > budget.memory_gb * 1e9:
            need = arm.cost.training_memory_bytes(arm.train.batch) / 1e9
            warnings.append(
                f"entries[{arm.index}] ({arm.entry}) needs {need:.2f} GB to train, over memory_gb {budget.memory_gb:g}: its cells end as over_budget."
            )
        tokens[arm] = allotted
        spent[arm] = share
    return Shares(tokens, resolved, tuple(dict.fromkeys(warnings)))


def tokens_for_flops(flops: int, cost: Cost, batch: int, d_sae: int) -> int:
    """Most tokens, in whole batches, whose training at the expected L0 costs at most `flops`; 0 where not one batch fits."""
    l0 = cost.expected_l0 if cost.expected_l0 is not None else float(d_sae)
    step = batch * cost.train_flops_per_token + math.ceil(batch * l0) * cost.train_flops_per_active + cost.step_flops
    return max(flops, 0) // max(step, 1) * batch


def _charged(arm: Arm, spent: Mapping[Arm, int], book: DatasetBook, unit: str) -> int:
    """What `counts: all` takes off a share and is known before anything runs: making the data, and the parent's share."""
    made = book.made_tokens(arm.dataset.name)
    if unit == "flops":
        made *= arm.site.facts.forward_flops_per_token() if arm.site.facts is not None else 0
    # a parent's share holds its own data and its own parent already
    return made + (spent[arm.parent] if arm.parent is not None else 0)
