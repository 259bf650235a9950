"""Strongest contexts."""

from __future__ import annotations

import json

import numpy as np
import torch

from saebench.api import ActivationBatch, SparseCodes
from saebench.metrics.contexts import AFTER, BEFORE, ContextCollector


def test_windows_stand_in_their_sequence_and_hold_the_peak() -> None:
    # 6 sequences of 20 tokens; latent 1 fires at position 10 of each, stronger in later ones, and beside it
    n, length = 120, 20
    z = torch.zeros(n, 4)
    for sequence in range(6):
        z[sequence * length + 10, 1] = sequence + 1
        z[sequence * length + 11, 1] = sequence + 0.5
    z[3, 2], z[25, 2] = -7.0, 1.0  # a negative code counts by its size
    collector = ContextCollector(4)
    for piece in torch.arange(n).split(50):  # batches cut through sequences
        batch = ActivationBatch(
            torch.zeros(len(piece), 1), torch.zeros(len(piece), 1), 1000 + piece, piece % length, piece // length
        )
        collector.update(batch, SparseCodes.from_dense(z[piece]))
    rows = collector.compute()
    assert [row["latent"] for row in rows] == [2, 1]  # by density; silent latents are left out
    strongest = rows[1]["contexts"]
    assert [context["peak"] for context in strongest] == [6, 5, 4, 3]  # one a sequence
    top = strongest[0]
    assert (top["at"], top["position"]) == (BEFORE, 10)
    assert top["token_ids"] == list(range(1000 + 102, 1000 + 102 + BEFORE + 1 + AFTER))
    assert top["activations"][BEFORE : BEFORE + 2] == [6, 5.5]
    assert sum(top["activations"]) == 11.5
    first = rows[0]["contexts"][0]
    assert (first["at"], first["token_ids"][0], first["peak"]) == (3, 1000, -7)  # cut at the start of the sequence
    json.dumps(rows, allow_nan=False)


def test_at_most_twenty_latents_spread_over_density() -> None:
    rng = torch.Generator().manual_seed(0)
    z = (torch.rand(500, 100, generator=rng) < torch.linspace(0.01, 0.9, 100)).float()
    ids = torch.arange(500)
    collector = ContextCollector(100)
    collector.update(ActivationBatch(z, z, ids, ids % 50, ids // 50), SparseCodes.from_dense(z))
    density = np.linspace(1, 0.01, 100)  # as another stream may say: reversed
    rows = collector.compute(density)
    assert len(rows) == 20
    assert [rows[0]["latent"], rows[-1]["latent"]] == [99, 0]
    assert [row["density"] for row in rows] == sorted(row["density"] for row in rows)
    assert rows == collector.compute(density)


def test_no_tokens_no_contexts() -> None:
    collector = ContextCollector(3)
    collector.update(ActivationBatch(torch.zeros(2, 1), torch.zeros(2, 1)), SparseCodes.from_dense(torch.ones(2, 3)))
    assert collector.compute() == []
