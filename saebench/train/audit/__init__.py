"""What a plugin does in training, held to what it declares and tells."""

from __future__ import annotations

from saebench.train.audit.hints import check_hints, energy
from saebench.train.audit.spending import Spending, check_sizes, checked_steps
from saebench.train.audit.work import Work

__all__ = ["Spending", "Work", "check_hints", "check_sizes", "checked_steps", "energy"]
