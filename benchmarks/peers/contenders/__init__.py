"""What is measured: one file a library. Each has `build(setting) -> Contender`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DEAD_SHARE = 0.2
DEAD_SIZE = 0.02
"""Encoder rows of latents that are forced dead have this norm, relative to the mean: too small for the top k, not too
small for AuxK.
"""


class Unavailable(Exception):
    """This contender cannot run here; says why."""


@dataclass(frozen=True)
class Setting:
    """What a contender is asked to do.

    Attributes:
        d_in, d_sae, k, batch: Sizes.
        options: The contender's own.
        batches: Four batches `[batch, d_in]` on the device.
        device: Where to run.
        dead: `[m]` ids of the latents that are to be dead; empty for none.
    """

    d_in: int
    d_sae: int
    k: int
    batch: int
    options: dict[str, Any]
    batches: Sequence[Tensor]
    device: torch.device
    dead: Tensor


@dataclass(frozen=True)
class Contender:
    """One thing that is timed.

    Attributes:
        step: One whole training step on a batch (or one product): what is timed.
        prepare: Called before each step, outside the clock.
        before_turn: Called before each turn, outside the clock.
        facts: Numbers worth recording, asked for once at the end.
        turn: Takes so many steps and times them itself, in place of `step` on the worker's batches.
        close: Called at the end.
    """

    step: Callable[[Tensor], Any]
    prepare: Callable[[], None] = lambda: None
    before_turn: Callable[[], None] = lambda: None
    facts: Callable[[], dict[str, Any]] = field(default=dict)
    turn: Callable[[int], list[float]] | None = None
    close: Callable[[], None] = lambda: None


def shrink(rows: Tensor, dead: Tensor) -> None:
    """Makes encoder rows `[d_sae, d_in]` of `dead` latents so short that they never reach the top k; in place."""
    norms = rows[dead].norm(dim=1, keepdim=True)
    rows[dead] *= DEAD_SIZE * rows[:256].norm(dim=1).mean() / norms.clamp_min(1e-12)


def per_latent_thresholds(pre: Tensor, l0: float) -> Tensor:
    """`[d_sae]`: for each latent the value that its pre-activations `[B, d_sae]` exceed on a share l0 / d_sae of
    tokens.
    """
    n_above = max(1, round(l0 / pre.shape[1] * pre.shape[0]))
    return pre.topk(n_above + 1, dim=0).values[n_above].clone()


def settle_thresholds(pre: Tensor, thresholds: Tensor, l0: float) -> None:
    """Multiplies positive thresholds `[d_sae]` by the one number at which pre-activations `[B, d_sae]` have this mean
    L0; in place.
    """
    low, high = -8.0, 8.0
    for _ in range(20):
        middle = (low + high) / 2
        above = float((pre > thresholds * 2.0**middle).sum()) / pre.shape[0]
        low, high = (middle, high) if above > l0 else (low, middle)
    thresholds *= 2.0 ** ((low + high) / 2)
