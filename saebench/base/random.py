"""Explicit generators, each derived from what it is for. No global random state anywhere."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from saebench.base.canonical import canonical_json

if TYPE_CHECKING:
    import torch


def derive_seed(*parts: str | int) -> int:
    """A seed in `[0, 2^63)` from what it is for, such as `derive_seed(data_seed, "epoch", 3)`."""
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts)).encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> torch.Generator:
    """A fresh CPU generator seeded with `derive_seed(*parts)`."""
    import torch

    return torch.Generator().manual_seed(derive_seed(*parts))
