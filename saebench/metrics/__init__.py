"""The accumulators of the core metrics. Each is a `saebench.api.CellMetric`; there is no registry.

An accumulator sums in float64 and divides once, so its value depends neither on the batch size nor on the order of
batches (up to float64 rounding). The harness feeds it by `update(stream, batch)`; `add` takes the same numbers as plain
tensors. Import from the modules: `reconstruction`, `losses`, `sparsity`, `density`, `variance_share`, `truth`, `cost`.
This package and `catalogue` load without torch.
"""

from __future__ import annotations

from saebench.metrics.accumulator import absence, metric_value, nulls
from saebench.metrics.catalogue import INFO

__all__ = ["INFO", "absence", "metric_value", "nulls"]
