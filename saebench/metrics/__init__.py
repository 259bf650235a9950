"""Numeric kernels and streaming accumulators behind the core metrics; no registry.

Every accumulator sums in float64 and divides once, so its value depends neither on the batch size nor on the order of batches
(up to float64 rounding). Import from the modules: `reconstruction`, `losses`, `sparsity`, `density`, `contexts`, `truth`, `cost`.
This package and `infos` load without torch.
"""

from __future__ import annotations

from saebench.metrics.catalogue import INFO, absence, metric_value, nulls

__all__ = ["INFO", "absence", "metric_value", "nulls"]
