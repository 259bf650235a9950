"""From the suite's shared budget to a token allotment for every contender.

Seeds and sweep points never divide a share; the candidates of a search (`tune`) do; `pool: true` divides the figure
equally among the entries. FLOPs become tokens through the architecture's own `Cost`, at the L0 that its config aims at;
seconds through a calibration that is frozen in the plan. So a cell is stopped by tokens whatever the unit, and its bits
are always the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saebench.api.specs import MOST_MEMORY_BYTES, Cost
from saebench.config import Problems, Suite
from saebench.config.problems import Path
from saebench.plan.contenders.contender import Contender
from saebench.plan.contenders.datasets import DatasetBook
from saebench.plan.sharing.device_seconds import Calibration

SHORT = {"tokens": "tokens", "flops": "flops", "device_seconds": "device seconds"}


@dataclass(frozen=True)
class Shares:
    """Allotments in tokens by contender, the resolved budget as the plan records it, and remarks."""

    tokens: Mapping[Contender, int]
    budget: Mapping[str, Any]
    warnings: tuple[str, ...]


def share_out(
    suite: Suite,
    contenders: Sequence[Contender],
    book: DatasetBook,
    problems: Problems,
    calibration: Calibration | None = None,
) -> Shares:
    """Allots tokens to every contender; adds a problem for each entry whose share is too small or used up.

    Args:
        calibration: Of these contenders; for `device_seconds`.
    """
    budget = suite.config.budget
    primary = budget.primary
    n_entries = len(suite.config.entries)
    total: int | float = getattr(budget, primary)
    resolved = {**budget.model_dump(), "entries": n_entries, "share": total, "total": total}
    if primary == "device_seconds" and calibration is None:
        problems.add(
            ("budget", "primary"),
            "device_seconds needs a calibration: some training steps of each contender on this machine. Run it, or "
            "plan without --no-measure.",
        )
        return Shares({}, resolved, ())
    if budget.pool:
        share = total / n_entries if primary == "device_seconds" else int(total) // n_entries
    else:
        share = total
        resolved["total"] = share * n_entries
    resolved["share"] = share
    if primary == "device_seconds" and calibration is not None:
        resolved["calibration"] = calibration.to_json()
    warnings = [
        f"budget.{other} is given but the primary is {primary}: {other} does not stop a cell."
        for other in SHORT
        if other != primary and getattr(budget, other) is not None
    ]
    tokens: dict[Contender, int] = {}
    for contender in contenders:
        if contender.parent is not None and contender.parent not in tokens:
            continue  # its parent's share has a problem, reported already
        entry = ("entries", contender.index or 0)
        if (need := contender.training_memory_bytes) > MOST_MEMORY_BYTES:
            problems.add(
                entry,
                f"training needs about {need // 10**12:,} TB of memory, more than any machine has. Use a smaller d_sae "
                "or batch.",
            )
            continue
        if calibration is not None and _unmeasured(contender, book, budget.counts, calibration):
            problems.add(
                entry,
                "its seconds could not be measured on this machine: its training steps (or its model's sampling) fail, "
                "or need more memory than there is. Run it with `primary: tokens` to see why.",
            )
            continue
        charged = _charged(contender, share, book, primary, calibration) if budget.counts == "all" else 0
        allotted = _allotted(share - charged, contender, primary, calibration)
        if allotted < contender.train.batch:
            problems.add(*_too_little(contender, allotted, charged, resolved))
            continue
        warnings += _remarks(contender, primary, budget.memory_gb)
        tokens[contender] = allotted
    return Shares(tokens, resolved, tuple(dict.fromkeys(warnings)))


def _too_little(
    contender: Contender, allotted: int, charged: int | float, budget: Mapping[str, Any]
) -> tuple[Path, str]:
    """The problem of a contender that gets less than one batch: where it is in the suite, and what to do."""
    primary, n = budget["primary"], contender.n_candidates
    share, unit, batch = _amount(budget["share"]), SHORT[primary], f"one batch of {contender.train.batch:,} tokens"
    if n > 1:
        less = f", less {_amount(charged)} for its data and its parent" if charged else ""
        return ("entries", contender.index or 0, "tune"), (
            f"{n} candidates divide a share of {share} {unit}{less}; each gets less than {batch}. "
            f"Try fewer values, raise budget.{primary}, or use a smaller batch."
        )
    if charged:
        return ("entries", contender.index or 0), (
            f"making its data and its parent cost {_amount(charged)} {unit} of its share of {share}, and `counts: all` "
            f"makes them count; what is left is under {batch}. Raise budget.{primary} or use `counts: train`."
        )
    pooled = (
        f" (the pool of {_amount(budget['total'])} shared by {budget['entries']} entries)" if budget["pool"] else ""
    )
    gives = "" if primary == "tokens" else f" gives {max(allotted, 0):,} tokens"
    return ("budget", primary), (
        f"a share of {share} {unit}{pooled}{gives} but one batch of {contender.title} is "
        f"{contender.train.batch:,} tokens. Raise it or use a smaller batch."
    )


def _allotted(left: int | float, contender: Contender, primary: str, calibration: Calibration | None) -> int:
    """Tokens that what is left of a share pays for.

    Candidates of a search divide it equally, each in whole batches, so that together they stay within it.
    """
    batch, n = contender.train.batch, contender.n_candidates
    if primary == "tokens":
        return int(left) if n == 1 else int(left) // n // batch * batch
    if primary == "flops":
        return tokens_for_flops(int(left) // n, contender.architecture.cost, batch, contender.architecture.d_sae)
    assert calibration is not None
    return tokens_for_seconds(float(left) / n, calibration.step_s(contender), batch)


def _remarks(contender: Contender, primary: str, memory_gb: float | None) -> list[str]:
    remarks = []
    if primary == "flops" and contender.architecture.cost.expected_l0 is None:
        remarks.append(
            f"{contender.title} aims at no L0: its FLOPs are counted at all "
            f"{contender.architecture.d_sae} latents, the most there can be."
        )
    need = contender.training_memory_bytes
    if memory_gb is not None and need > memory_gb * 1e9:
        remarks.append(
            f"{contender.title} needs {need / 1e9:.2f} GB to train, over memory_gb "
            f"{memory_gb:g}: its cells end as over_budget."
        )
    return remarks


def tokens_for_flops(flops: int, cost: Cost, batch: int, d_sae: int) -> int:
    """Most tokens, in whole batches, whose training at the expected L0 costs at most `flops`; 0 where no batch fits."""
    return max(flops, 0) // max(_step_flops(cost, batch, d_sae), 1) * batch


def tokens_for_seconds(seconds: float, step_s: float, batch: int) -> int:
    """Most tokens, in whole batches, that `seconds` of training steps of `step_s` each pay for; 0 where none fits."""
    return int(max(seconds, 0.0) / step_s) * batch


def same_spend(child: Contender, other: Contender, tokens: int, primary: str) -> int:
    """Tokens that `other` gets for what a child spends on `tokens` of its own.

    As many, or under a budget of FLOPs those that its whole batches may cost. Under device seconds a step of the parent
    is taken to last as long as one of its child.
    """
    if primary != "flops":
        return tokens
    batch = child.train.batch
    step = _step_flops(child.architecture.cost, batch, child.architecture.d_sae)
    return tokens_for_flops(tokens // batch * step, other.architecture.cost, batch, other.architecture.d_sae)


def _step_flops(cost: Cost, batch: int, d_sae: int) -> int:
    """FLOPs of a step at the L0 that the config aims at."""
    l0 = cost.expected_l0 if cost.expected_l0 is not None else float(d_sae)
    return batch * cost.train_flops_per_token + math.ceil(batch * l0) * cost.train_flops_per_active + cost.step_flops


def _charged(
    contender: Contender, share: int | float, book: DatasetBook, unit: str, calibration: Calibration | None
) -> int | float:
    """What `counts: all` takes off a share, known before anything runs: making the data, and the parent's share."""
    made: int | float = book.made_tokens(contender.dataset.name)
    if unit == "flops":
        made *= contender.site.facts.forward_flops_per_token() if contender.site.facts is not None else 0
    if unit == "device_seconds" and made:
        assert calibration is not None and contender.site.model is not None
        made *= calibration.sample_s(contender.site.model) or 0.0
    # a parent's share, as large as any, holds its own data and its own parent already
    return made + (share if contender.parent is not None else 0)


def _unmeasured(contender: Contender, book: DatasetBook, counts: str, calibration: Calibration) -> bool:
    samples = counts == "all" and book.made_tokens(contender.dataset.name) > 0 and contender.site.model is not None
    return calibration.lacks(contender) or (
        samples and contender.site.model is not None and calibration.sample_s(contender.site.model) is None
    )


def _amount(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"
