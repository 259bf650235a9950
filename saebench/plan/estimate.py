"""What a plan will cost: tokens and FLOPs exactly as the meter counts them, seconds under a named assumption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from saebench.plan.arms import Arm
from saebench.plan.model import Cell, Cohort, Estimate

ASSUMED_FLOPS_PER_S = 1e11
"""Sustained rate of two cores of a server CPU with AVX-512 on these shapes. An assumption, printed as one, until a machine is calibrated."""
ASSUMED_STEP_S = 0.006
"""Fixed time of one training step: a few dozen small operators."""
BASE_MEMORY_BYTES = 1_500_000_000
"""Interpreter, torch, transformers, a small language model and its log-probabilities, mapped stores: what the quickstart was seen to take."""
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
DENSITY_STREAMS = 3
"""Held-out text, random tokens, the model's own samples: each of `density_tokens`."""
LOSS_FORWARDS = 3
"""Clean, zero and mean; each once for all cells of a cohort."""


def estimate(
    cells: Sequence[Cell], cohorts: Sequence[Cohort], arms: Mapping[str, Arm], data_tokens: Mapping[str, int]
) -> Estimate:
    """Totals over `cells`.

    Args:
        cells, cohorts: Of the plan.
        arms: By cell id.
        data_tokens: Tokens that making each dataset (by name) costs.
    """
    train_flops = forward = scoring = steps = disk = memory = 0
    for cell in cells:
        arm = arms[cell.cell_id]
        cost = arm.cost
        evaluation = cell.evaluation
        n_scored = evaluation.tokens + DENSITY_STREAMS * evaluation.density_tokens + evaluation.loss_tokens
        passes = len(evaluation.datasets) * len(evaluation.seeds)
        scoring += passes * n_scored * cost.encode_flops_per_token
        if arm.site.facts is not None and arm.site.facts.causal:
            forward += passes * evaluation.loss_tokens * arm.site.facts.forward_flops_per_token()
        disk += cost.stored_bytes
        if not cell.control:
            n_steps = math.ceil(cell.tokens / cell.train.batch)
            l0 = cost.expected_l0 if cost.expected_l0 is not None else cell.d_sae
            train_flops += (
                int(cell.tokens * (cost.train_flops_per_token + l0 * cost.train_flops_per_active))
                + n_steps * cost.step_flops
            )
            steps += n_steps
            memory = max(memory, cost.training_memory_bytes(cell.train.batch))
    for cohort in cohorts:
        arm = arms[cohort.cells[0]]
        disk += cohort.tokens * arm.site.site.d_in * BYTES[cohort.dtype]
        if cohort.model is not None and arm.site.facts is not None:
            here, full = (
                arm.site.facts.forward_flops_per_token(cohort.model.hookpoint),
                arm.site.facts.forward_flops_per_token(),
            )
            forward += cohort.tokens * here + data_tokens.get(cohort.dataset.name, 0) * full
            first = next(cell for cell in cells if cell.cell_id == cohort.cells[0]).evaluation
            streams = (
                first.tokens + DENSITY_STREAMS * first.density_tokens
            ) * here + LOSS_FORWARDS * first.loss_tokens * full
            forward += len(first.datasets) * len(first.seeds) * streams
    return Estimate(
        train_tokens=sum(cell.tokens for cell in cells if not cell.control),
        train_flops=train_flops,
        forward_flops=forward,
        seconds=round((train_flops + forward + scoring) / ASSUMED_FLOPS_PER_S + steps * ASSUMED_STEP_S, 3),
        disk_bytes=disk,
        memory_bytes=memory + BASE_MEMORY_BYTES,
    )
