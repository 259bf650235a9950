"""Loss metrics."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from saebench.api import SplicedLosses
from saebench.metrics.catalogue import LOSSES
from saebench.metrics.losses import LossAccumulator


def losses(n: int = 512, seed: int = 0) -> SplicedLosses:
    rng = torch.Generator().manual_seed(seed)
    noise = torch.rand(6, n, generator=rng)
    return SplicedLosses(2 + noise[0], 2.4 + noise[1], 9 + noise[2], 6 + noise[3], 0.3 + noise[4], 7 + noise[5])


def cut(whole: SplicedLosses, piece: torch.Tensor) -> SplicedLosses:
    return SplicedLosses(**{field.name: getattr(whole, field.name)[piece] for field in dataclasses.fields(whole)})


def test_batching_and_order_do_not_matter() -> None:
    whole, ids = losses(), torch.arange(512) // 32
    one, many = LossAccumulator(), LossAccumulator()
    one.add(whole, ids)
    for piece in torch.randperm(512, generator=torch.Generator().manual_seed(1)).split(37):
        many.add(cut(whole, piece), ids[piece])
    for id, value in one.values().items():
        assert many.values()[id].value == pytest.approx(value.value, rel=1e-12), id
        assert many.values()[id].stderr == pytest.approx(value.stderr, rel=1e-9), id


def test_lossless_is_one_and_ablation_is_zero() -> None:
    base = losses()
    lossless, ablated = LossAccumulator(), LossAccumulator()
    lossless.add(dataclasses.replace(base, ce_spliced=base.ce_clean, kl_spliced=torch.zeros(512)))
    ablated.add(dataclasses.replace(base, ce_spliced=base.ce_zero, kl_spliced=base.kl_zero))
    assert [lossless.values()[id].value for id in ("ce-recovered-zero", "ce-recovered-mean", "kl-recovered")] == [
        1,
        1,
        1,
    ]
    assert [ablated.values()[id].value for id in ("ce-recovered-zero", "kl-recovered")] == [0, 0]


def test_standard_error_of_a_recovered_fraction_against_the_bootstrap() -> None:
    rng = torch.Generator().manual_seed(2)
    by_sequence = torch.rand(100, 1, generator=rng).expand(100, 8)
    clean = 2 + torch.rand(100, 8, generator=rng)
    spliced, zero = clean + by_sequence, clean + 4 + 2 * torch.rand(100, 8, generator=rng)
    sums = LossAccumulator()
    flat = [t.reshape(-1) for t in (clean, spliced, zero, zero, by_sequence, zero)]
    sums.add(SplicedLosses(*flat), torch.arange(100).repeat_interleave(8))
    sampled = []
    for _ in range(1500):
        pick = torch.randint(0, 100, (100,), generator=rng)
        sampled.append(float((zero[pick] - spliced[pick]).sum() / (zero[pick] - clean[pick]).sum()))
    assert sums.values()["ce-recovered-zero"].stderr == pytest.approx(torch.tensor(sampled).std().item(), rel=0.1)


def test_small_gaps_are_null() -> None:
    base = losses()
    sums = LossAccumulator()
    sums.add(dataclasses.replace(base, ce_zero=base.ce_clean + 0.001, kl_zero=torch.full((512,), 1e-4)))
    values = sums.values()
    for id in ("ce-recovered-zero", "kl-recovered"):
        assert values[id].value is None
        assert "nothing to recover" in (values[id].reason or "")
    assert values["ce-recovered-mean"].value is not None


def test_empty_and_not_finite() -> None:
    empty = LossAccumulator().values()
    assert list(empty) == [info.id for info in LOSSES]
    assert all(value.reason == "no tokens were seen" for value in empty.values())
    base = losses(4)
    base.kl_spliced[1] = torch.nan
    sums = LossAccumulator()
    sums.add(base)
    assert all(value.reason == "the loss is not finite for 1 of 4 tokens" for value in sums.values().values())
