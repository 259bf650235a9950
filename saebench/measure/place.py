"""Where a plan is made for: a device of this machine, or a card of the table that is elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saebench.api.errors import SuiteError
from saebench.measure.machine import check_device
from saebench.nn.kernels import backends
from saebench.plan.forecast.card import Card
from saebench.plan.forecast.devices import DEFAULT, DEVICES, Device, find_device, known_as
from saebench.plan.forecast.rates import Rates
from saebench.plan.grouping.memory_batches import free_bytes, total_bytes

CONTEXT_BYTES = 600_000_000
"""What CUDA itself takes of a card before the first tensor: assumed, no card was measured."""


@dataclass(frozen=True)
class Room:
    """Memory of a device, or of the machine where that is its CPU: bytes that are free, bytes in all, whose.

    `compiles`: encoder products run in bfloat16 on the CPU, and are compiled for every shape.
    """

    free: int
    total: int
    of: str
    on_card: bool = False
    compiles: bool = False


@dataclass(frozen=True)
class Place:
    """Where cells would run.

    Attributes:
        device: As torch names it, or as the table does where it is elsewhere.
        card: What its maker says of it; None for the CPU.
        here: Whether it is in this machine.
        remark: What a person should know of how it was chosen.
    """

    device: str
    card: Device | None = None
    here: bool = True
    remark: str | None = None

    def assumed(self, *_: object) -> Rates:
        """What is assumed of it where nothing was measured: a `Measure` that measures nothing."""
        return Rates() if self.card is None else Rates(assumed=Card(self.card))

    def is_it(self, machine: Mapping[str, Any]) -> bool:
        """Whether a machine, by its facts, has this card."""
        return self.card is not None and known_as(str(machine.get("gpu", ""))) == self.card

    def room(self) -> Room:
        """Its memory."""
        if self.here or self.card is None:
            of = "this machine" if self.card is None else f"{self.device} of this machine"
            free, total, on_card = free_bytes(self.device), total_bytes(self.device), self.card is not None
            return Room(free, total, of, on_card, backends.current(self.device) == "bf16-screen")
        usable = self.card.memory_bytes - CONTEXT_BYTES
        return Room(usable, usable, self.card.title, on_card=True)

    def refuse_measuring(self) -> None:
        """Raises SuiteError where it is elsewhere: nothing can be measured."""
        if not self.here:
            raise SuiteError(f"--measure: {self.device} is not in this machine. Measure where it is, or leave it out.")

    def refuse_seconds(self) -> None:
        """Raises SuiteError where it is elsewhere: a share of seconds is no number of tokens before steps are timed."""
        if not self.here:
            raise SuiteError(
                f"budget.primary: device_seconds become tokens by training steps that are timed on the device, and "
                f"{self.device} is not in this machine. Plan where it is, give --out a run folder that holds the "
                "calibration, or plan with `primary: tokens` or `flops`."
            )


def place_to_run(device: str) -> Place:
    """A device of this machine.

    Raises:
        MachineError: This machine does not have it.
        SuiteError: Not a device at all.
    """
    check_device(device)
    if not device.startswith("cuda"):
        return Place(device)
    import torch

    title = torch.cuda.get_device_name(torch.device(device))
    slowest = min(DEVICES.values(), key=lambda one: one.bytes_per_s)
    return Place(device, known_as(title) or slowest)


def place_to_plan(device: str) -> Place:
    """A device of this machine, or a card of the table; `cuda` where none is visible is the table's usual one.

    Raises:
        MachineError: `cuda:N` with more cards than there are.
        SuiteError: Not a device, and no card of the table.
    """
    import torch

    device = device.strip()
    try:
        kind = torch.device(device).type
    except RuntimeError:
        card = find_device(device)
        return Place(card.name, card, here=False)
    if kind == "cuda" and not torch.cuda.is_available():
        others = ", ".join(name for name in DEVICES if name != DEFAULT)
        remark = (
            f"--device {device}: no CUDA device is visible here, so the plan is one for {DEFAULT}. Name the card that "
            f"it will be: --device {others}."
        )
        return Place(DEFAULT, DEVICES[DEFAULT], here=False, remark=remark)
    return place_to_run(device)
