"""The meter that stops a cell, and the memory gauge."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from saebench.api import Cost, OverBudget, SparseCodes


class Meter:
    """Counts a cell's own training, at its stand-alone cost, and says when its share is used up.

    A step's FLOPs are `B * train_flops_per_token + entries * train_flops_per_active + step_flops`, with the entries of
    this very batch's codes, and what the step reports beyond that (`LossTerms.flops`). An entry that is stored counts,
    a zero too: kernels work on it all the same (JumpReLU stores those that its gradient reads).

    Args:
        allotted: Tokens of the cell's share.
        cost: From the architecture's spec.
        d_sae: Latents; what a batch's L0 is taken for when neither the module nor the config tells (an upper bound).

    Attributes:
        hooks: FLOPs counted in each of the plugin's hooks; they are in `flops`.
    """

    def __init__(self, allotted: int, cost: Cost, d_sae: int) -> None:
        self.allotted = allotted
        self.cost = cost
        self.tokens = 0
        self._whole_flops = 0
        self._active = 0
        self._paid = 0
        self.hooks: dict[str, int] = {}
        self._assumed_l0 = cost.expected_l0 if cost.expected_l0 is not None else float(d_sae)

    @property
    def exhausted(self) -> bool:
        """True once the share is used up: the step that crosses it is the last, so at most one batch is over-spent."""
        return self.tokens >= self.allotted

    @property
    def over_spent(self) -> int:
        """Tokens past the share."""
        return max(0, self.tokens - self.allotted)

    @property
    def progress(self) -> float:
        """Spent over allotted."""
        return self.tokens / self.allotted

    @property
    def flops(self) -> int:
        """Floating-point operations so far, a multiply-add counted as two."""
        return self._whole_flops + self._active * self.cost.train_flops_per_active

    def charge_step(self, n_tokens: int, codes: SparseCodes | None, more_flops: int = 0) -> int:
        """Counts one training step; gives its FLOPs."""
        before = self.flops
        self.tokens += n_tokens
        self._whole_flops += n_tokens * self.cost.train_flops_per_token + self.cost.step_flops + more_flops
        self._active += round(self._assumed_l0 * n_tokens) if codes is None else codes.values.numel()
        return self.flops - before

    def charge_hook(self, hook: str, flops: int) -> None:
        """Counts what a hook was seen to do; of tokens that it read, only what goes beyond their own charge."""
        paid, self._paid = self._paid, 0
        self.hooks[hook] = self.hooks.get(hook, 0) + flops
        self._whole_flops += max(0, flops - paid)

    def state(self) -> dict[str, Any]:
        """What a snapshot keeps."""
        return {
            "tokens": self.tokens,
            "whole_flops": self._whole_flops,
            "active": self._active,
            "hooks": dict(self.hooks),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        self.tokens, self._whole_flops, self._active = state["tokens"], state["whole_flops"], state["active"]
        self.hooks = dict(state["hooks"])

    def charge_encode(self, n_tokens: int) -> None:
        """Counts a pass that only encodes tokens already paid for (making the inference form)."""
        self._whole_flops += n_tokens * self.cost.encode_flops_per_token
        self._paid += n_tokens * self.cost.encode_flops_per_token

    def charge_fit(self, n_tokens: int) -> None:
        """Counts tokens that a `fit` read."""
        self.tokens += n_tokens
        self._whole_flops += n_tokens * self.cost.train_flops_per_token
        self._paid += n_tokens * self.cost.train_flops_per_token


def refuse_if_too_big(cost: Cost, batch: int, share_bytes: int | None, label: str) -> None:
    """Raises OverBudget when parameters, gradients, moments and workspace would not fit the cell's memory share."""
    needed = cost.training_memory_bytes(batch)
    if share_bytes is not None and needed > share_bytes:
        raise OverBudget(
            f"{label}: training needs {needed:,} bytes ({cost.n_parameters:,} learned values with gradients and "
            f"moments, and the workspace of a batch of {batch:,}), "
            f"but its memory share is {share_bytes:,} bytes. Use a smaller d_sae or batch, or raise budget.memory_gb."
        )


class PeakMemory:
    """Largest memory in use since it was made. `scope` says of what.

    On CUDA: what tensors held on the device. On the CPU: the resident set of the whole process (the language model and
    the data included). Since the pass began, in which all its cells are in memory together; on the CPU since the
    process began where the mark cannot be reset.
    """

    def __init__(self, device: torch.device, n_cells: int) -> None:
        self._device = device
        pass_of = f"since its pass of {n_cells} cell{'s' * (n_cells > 1)} began"
        _higher(device)  # of the whole process; the mark goes down now
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.scope = f"tensors on the device, {pass_of}"
            return
        self.scope = "the whole process, since it began"
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark of the resident set
            self.scope = f"the whole process, {pass_of}"

    def read(self) -> int:
        """Bytes."""
        return _mark(self._device)


def process_peak(device: str) -> int:
    """Most bytes that this process held so far: resident on the CPU; tensors on a CUDA device."""
    return _higher(torch.device(device))


_highest: dict[torch.device, int] = {}
"""The mark is the system's and belongs to the process, so what it showed before it was reset is kept here for it."""


def _higher(device: torch.device) -> int:
    _highest[device] = max(_mark(device), _highest.get(device, 0))
    return _highest[device]


def _mark(device: torch.device) -> int:
    """The high-water mark since it was last reset."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    with suppress(OSError, StopIteration):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return high if sys.platform == "darwin" else high * 1024
