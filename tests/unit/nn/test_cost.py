"""Cost formulas against what is built, and check helpers."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from saebench.api import Site
from saebench.nn import LinearSAE, stored_bytes
from saebench.nn.cost import (
    at_least,
    block_tokens,
    fraction,
    k_fits,
    linear_cost,
    not_negative,
    one_place,
    positive,
)


def test_linear_cost_by_hand() -> None:
    cost = linear_cost(6, 10, expected_l0=3)
    sae = LinearSAE(6, 10, torch.Generator().manual_seed(0))
    assert cost.n_parameters == sum(p.numel() for p in sae.parameters()) == 136
    assert cost.stored_bytes == stored_bytes(sae)
    assert cost.encode_flops_per_token == 2 * 6 * 10 + 10 + 6
    assert cost.train_flops_per_active == 4 * 2 * 6  # decode, its value gradient, two weight gradients
    assert cost.expected_l0 == 3
    # a block's pre-activations with their mask, W_enc in bfloat16, two gradients that the allocator keeps
    assert cost.workspace_bytes == 2048 * 5 * 10 + 2 * 6 * 10 + 8 * 6 * 10
    assert cost.workspace_bytes_per_token == 26 * 6 + 64 * 3
    wide = linear_cost(1024, 65_536, expected_l0=3)
    assert wide.workspace_bytes == 256 * 5 * 65_536 + 2 * 1024 * 65_536 + (64 << 20)  # it keeps no larger pieces
    assert cost.training_memory_bytes(100) == 16 * 136 + cost.workspace_bytes + 100 * cost.workspace_bytes_per_token


def test_a_batch_selected_as_a_whole_needs_all_its_pre_activations() -> None:
    blocked, whole = linear_cost(6, 10, expected_l0=3), linear_cost(6, 10, expected_l0=3, blocked=False)
    assert whole.step_workspace_bytes(2048) == blocked.step_workspace_bytes(2048)
    assert whole.step_workspace_bytes(3072) == blocked.step_workspace_bytes(3072) + 1024 * 5 * 10


def test_helpers_say_what_was_found_and_what_to_use() -> None:
    config = SimpleNamespace(d_sae=8, k=9, a=0, b=-1.0, c=None, d=2.0)
    assert [p.message for p in k_fits(config)] == ["got 9 but d_sae is 8. Use k <= d_sae."]
    assert [p.key for p in at_least(config, 1, "a", "c", "k")] == ["a"]
    assert [p.key for p in positive(config, "a", "b", "c", "d")] == ["a", "b"]
    assert [p.key for p in not_negative(config, "a", "b", "c")] == ["b"]
    assert [p.key for p in fraction(config, "a", "b", "c", "d")] == ["a", "b", "d"]
    assert not list(one_place(Site(4, 4)))
    assert "reads 4 and writes 5" in next(iter(one_place(Site(4, 5)))).message


def test_a_block_has_about_twelve_million_pre_activations() -> None:
    assert [block_tokens(d_sae) for d_sae in (1, 6144, 8192, 24576, 49152, 131072)] == [2048, 2048, 1024, 512, 256, 256]
