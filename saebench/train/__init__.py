"""Training: one loop, one optimiser, one meter for every architecture."""

from __future__ import annotations

from saebench.train.feed import rms_scale
from saebench.train.loop import train_pass
from saebench.train.meter import Meter
from saebench.train.outcome import TrainOutcome, read_outcome, save_outcome
from saebench.train.watch import Watch

__all__ = ["Meter", "TrainOutcome", "Watch", "read_outcome", "rms_scale", "save_outcome", "train_pass"]
