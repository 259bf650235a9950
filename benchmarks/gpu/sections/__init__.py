"""What is checked: one file a section. Each has `run(notes, setting)`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setting:
    """How a section is to run.

    Attributes:
        device: `cpu` or `cuda`.
        short: Small sizes.
        scratch: An empty folder.
    """

    device: str
    short: bool
    scratch: Path

    @property
    def place(self) -> torch.device:
        """The device as torch's."""
        import torch

        return torch.device(self.device)

    @property
    def is_cuda(self) -> bool:
        """Whether there is a card."""
        return self.device == "cuda"
