"""What depends on progress (spent / allotment): the learning rate, and the steps at which the trajectory is noted."""

from __future__ import annotations

import math


def lr_factor(before: float, after: float, warmup: float, decay: float) -> float:
    """Share of the peak learning rate for a step that takes progress from `before` to `after`.

    Linear from 0 over the first `warmup` of the allotment, 1, linear to 0 over the last `decay`, read at the step's
    midpoint: no step is lost to a rate of zero, and the sum over steps is the area under the schedule.

    Args:
        before: Progress before the step, in [0, 1).
        after: Progress after it; more than 1 counts as 1.
        warmup: Fraction in [0, 1]; 0 for none.
        decay: Fraction in [0, 1]; 0 for none.
    """
    middle = (before + min(after, 1.0)) / 2
    rise = middle / warmup if warmup > 0 else 1.0
    fall = (1.0 - middle) / decay if decay > 0 else 1.0
    return max(0.0, min(1.0, rise, fall))


def log_spaced_steps(n_steps: int, points: int = 12) -> list[int]:
    """`points` step counts from 1 to `n_steps`, evenly spaced in the logarithm, all different; all steps where fewer.

    Example: `log_spaced_steps(100, 3)` is `[1, 10, 100]`.
    """
    if n_steps <= points:
        return list(range(1, n_steps + 1))
    steps: list[int] = []
    for index in range(points):
        target = round(math.exp(math.log(n_steps) * index / (points - 1)))
        steps.append(max(target, steps[-1] + 1 if steps else 1))
    return steps
