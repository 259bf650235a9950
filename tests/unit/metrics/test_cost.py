"""Cost metrics."""

from __future__ import annotations

import torch

from saebench.api import ScoringFacts, TrainingFacts
from saebench.metrics.cost import cost_values


def test_defaults_and_own_counts() -> None:
    module = torch.nn.Linear(3, 2)
    module.register_buffer("mask", torch.zeros(5, dtype=torch.uint8))
    values = cost_values(module, TrainingFacts(1000, 5_000_000, 20, 1.5, 1 << 20), ScoringFacts(400, 0.5))
    assert {id: value.value for id, value in values.items()} == {
        "train-tokens": 1000,
        "train-flops": 5e6,
        "train-device-s": 1.5,
        "peak-memory-bytes": 1 << 20,
        "data-cost-tokens": 20,
        "stored-bytes": 8 * 4 + 5,
        "learned-values": 8,
        "encode-tokens-per-s": 800,
    }

    class Compact(torch.nn.Module):
        def stored_bytes(self) -> int:
            return 7

        def learned_values(self) -> int:
            return 3

    own = cost_values(Compact(), TrainingFacts(0, 0, 0), ScoringFacts())
    assert (own["stored-bytes"].value, own["learned-values"].value) == (7, 3)
    assert own["train-device-s"].reason == "not measured: nothing was trained"
    assert own["encode-tokens-per-s"].reason == "nothing was encoded"
