"""Training: one loop, one optimiser, one meter for every architecture."""

from __future__ import annotations

from saebench.train.loop import train_cell, train_cohort
from saebench.train.meter import Meter
from saebench.train.monitor import Progress
from saebench.train.outcome import TrainOutcome, read_outcome, save_outcome
from saebench.train.source import BatchSource, rms_scale

__all__ = [
    "BatchSource", "Meter", "Progress", "TrainOutcome", "read_outcome", "rms_scale", "save_outcome",
    "train_cell", "train_cohort",
]  # fmt: skip
