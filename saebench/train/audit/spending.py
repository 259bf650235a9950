"""What a plugin spends: in hooks, where it is counted and charged, and in steps, where it is held to its Cost."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from saebench.api import Cost, OverBudget, PluginError
from saebench.metrics.cost import learned_values, stored_bytes
from saebench.train.audit.work import Work
from saebench.train.meter import Meter
from saebench.train.schedule import log_spaced_steps

TOLERANCE = 1.1
"""More work than this part of what is declared is a fault. Of the built-ins' steps at most 0.93 of it are counted."""
ENCODE_TOLERANCE = 2.0
"""The same for encoding alone: kernels look at some entries twice (1.17 of what ReLU's declares was seen)."""
HOOK_SHARE = 0.02
"""Part of its allotment that a cell may spend in hooks beyond what is free there."""
FREE_PRODUCTS = 16_384
"""Free in `init_from_data`: encoder products of so many tokens. JumpReLU takes 12,600, TopK 4,400."""
FREE_PER_INPUT = 200
"""Free there as well, for each value of the sample. The geometric median takes 60 to 120."""
FREE_PER_PARAMETER = 64
"""Free in building and in setting up the optimiser. Built-ins take 8."""
FREE_ENCODINGS = 1.25
"""Free in `finalize`: so many encoder products of each token that it reads. BatchTopK takes 1.03 to 1.13."""
FREE_PER_LATENT = 24
"""Free there as well, for each latent of a token; and in `after_step`, for each latent of the dictionary."""
_NO_DATA = frozenset({"build", "param_groups"})
"""These are given no data: what is free there is not charged."""
CHECKED_STEPS = 12
"""Steps drawn by the cell's id whose work is counted, beside as many evenly spaced in the logarithm."""


def checked_steps(cell_id: str, n_steps: int) -> frozenset[int]:
    """Indices of the steps whose work is counted, the first among them; a plugin cannot tell the others."""
    drawn = random.Random(cell_id).sample(range(n_steps), min(CHECKED_STEPS, n_steps))
    return frozenset(drawn) | {step - 1 for step in log_spaced_steps(n_steps, CHECKED_STEPS)}


def check_sizes(module: Any, cost: Cost, label: str) -> None:
    """Raises PluginError where a module is larger than its Cost, or its own methods, say."""
    state = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    learned = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    for name, real, told in (
        ("Cost.n_parameters", learned, cost.n_parameters),
        ("Cost.stored_bytes", state, cost.stored_bytes),
        ("learned_values()", learned, learned_values(module)),
        ("stored_bytes()", state, stored_bytes(module)),
    ):
        if real > TOLERANCE * told:
            raise PluginError(f"{label}: {name} is {told:,}, but the module has {real:,}. Declare {real:,}.")


class Spending:
    """Counts, charges and limits what a cell's plugin does outside of the work that its Cost declares.

    Args:
        label: Of the cell.
        meter: Is charged.
        product: FLOPs of an encoder product of one token.
        n_steps: Of the cell.
        enforced: Whether hooks are counted; not of the controls of saebench, which have no allotment.

    Attributes:
        record: What `to_json` gave after the newest hook.
    """

    def __init__(self, label: str, meter: Meter, *, d_in: int, d_sae: int, n_steps: int, enforced: bool) -> None:
        cost = meter.cost
        self._label, self._meter, self._enforced = label, meter, enforced
        self._d_in, self._d_sae, self._product = d_in, d_sae, 2 * d_in * d_sae
        self._free: dict[str, float] = {}
        self.record: dict[str, Any] = {}
        active = cost.expected_l0 if cost.expected_l0 is not None else d_sae
        self.allotted = max(1, round(
            meter.allotted * (cost.train_flops_per_token + active * cost.train_flops_per_active)
            + n_steps * cost.step_flops
        ))  # fmt: skip

    @contextmanager
    def hook(self, name: str) -> Iterator[None]:
        """Counts the block as a hook's and charges it.

        Raises:
            OverBudget: The hooks have spent more than they may.
        """
        if not self._enforced:
            yield
            return
        with Work() as work:
            yield
        free = int(self._free.get(name, 0)) if name in _NO_DATA else 0
        self._meter.charge_hook(name, max(0, work.flops - free))
        self.record.update(self.to_json())
        self.check()

    def free_to_build(self, n_parameters: int, sample_values: int) -> None:
        """What is free before the first step."""
        self._free["build"] = FREE_PER_PARAMETER * n_parameters + 4 * self._d_in * self._product
        self._free["param_groups"] = FREE_PER_PARAMETER * n_parameters
        self._free["init_from_data"] = FREE_PRODUCTS * self._product + FREE_PER_INPUT * sample_values

    def free_in_steps(self, n_steps: int) -> None:
        """What is free after so many steps."""
        self._free["after_step"] = FREE_PER_LATENT * self._d_sae * n_steps

    def free_to_finish(self, hook: str, n_tokens: int, n_parameters: int) -> None:
        """What is free for a `finalize` or a `fit` that has read so many tokens."""
        each = FREE_ENCODINGS * self._product + FREE_PER_LATENT * self._d_sae
        if hook == "fit":
            each = TOLERANCE * self._meter.cost.train_flops_per_token
        self._free[hook] = n_tokens * each + FREE_PER_PARAMETER * n_parameters

    @property
    def over(self) -> int:
        """FLOPs that hooks spent beyond what is free there."""
        return sum(max(0, spent - self._unbilled(hook)) for hook, spent in self._meter.hooks.items())

    def _unbilled(self, hook: str) -> int:
        """What of a hook's count is free."""
        return 0 if hook in _NO_DATA else int(self._free.get(hook, 0))

    def check(self) -> None:
        """Raises OverBudget where the hooks have spent more than they may."""
        if self.over <= HOOK_SHARE * self.allotted:
            return
        spent = ", ".join(
            f"{hook} {flops:,} FLOPs ({self._unbilled(hook):,} are free)" for hook, flops in self._meter.hooks.items()
        )
        raise OverBudget(
            f"{self._label}: its hooks spent {self.over / self.allotted:.1%} of the cell's allotment of "
            f"{self.allotted:,} FLOPs beyond what is free, and {HOOK_SHARE:.0%} is allowed: {spent}. What is learnt is "
            "learnt in training steps."
        )

    def check_step(self, dense: int, charged: int) -> None:
        """Raises PluginError where a step did more dense work than it was charged for."""
        if dense > TOLERANCE * charged:
            raise PluginError(
                f"{self._label}: a training step did {dense:,} FLOPs in matrix products, and its Cost declares "
                f"{charged:,}. Raise Cost.train_flops_per_token, or report what varies in LossTerms.flops."
            )

    def check_encode(self, dense: int, n_tokens: int) -> None:
        """Raises PluginError where encoding did more dense work than is declared."""
        declared = self._meter.cost.encode_flops_per_token
        if dense > ENCODE_TOLERANCE * n_tokens * declared:
            raise PluginError(
                f"{self._label}: encode did {math.ceil(dense / max(1, n_tokens)):,} FLOPs a token in matrix products, "
                f"and Cost.encode_flops_per_token is {declared:,}. Declare what it does."
            )

    def to_json(self) -> dict[str, Any]:
        """FLOPs by hook, and their part of the allotment."""
        hooks = {name: flops for name, flops in self._meter.hooks.items() if flops}
        return {"flops": hooks, "allotted": self.allotted, "share": sum(hooks.values()) / self.allotted}
