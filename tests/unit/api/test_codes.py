from __future__ import annotations

import dataclasses

import pytest
import torch

from saebench.activations.store import to_device
from saebench.api import ActivationBatch, SparseCodes


@pytest.fixture
def codes():
    """Rows of 2, 0, 1 and 2 entries, and a mean for each."""
    return SparseCodes(
        torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0]),
        torch.tensor([0, 2, 1, 3, 0]),
        torch.tensor([0, 2, 2, 3, 5]),
        4,
        {"mean": torch.tensor([[10.0], [20.0], [30.0], [40.0]])},
    )


def same(a, b):
    assert a.d_sae == b.d_sae and a.side.keys() == b.side.keys()
    for name in ("values", "latents", "offsets"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    for name, values in a.side.items():
        assert torch.equal(values, b.side[name]), name


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [3, 0], [1], [2, 2, 1, 2], []])
def test_select_takes_rows_in_order(codes, rows):
    index = torch.tensor(rows, dtype=torch.long)
    some = codes.select(index)
    assert torch.equal(some.to_dense(), codes.to_dense()[index])
    assert torch.equal(some.side["mean"], codes.side["mean"][index])


@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2), (3, 9)])
def test_slice_is_a_run_of_rows(codes, start, stop):
    some = codes.slice(start, stop)
    assert torch.equal(some.to_dense(), codes.to_dense()[start:stop])
    assert torch.equal(some.side["mean"], codes.side["mean"][start:stop])
    assert int(some.offsets[0]) == 0


def test_pieces_make_the_whole(codes):
    same(SparseCodes.concatenate([codes.slice(0, 1), codes.slice(1, 1), codes.slice(1, 4)]), codes)


def test_a_move_to_a_device_keeps_side(codes):
    moved = codes.to("meta")
    assert {moved.values.device.type, moved.offsets.device.type, moved.side["mean"].device.type} == {"meta"}
    x = torch.zeros(4, 3)
    batch = to_device(ActivationBatch(x, x, truth=codes), torch.device("meta"))
    assert batch.truth is not None and batch.truth.side["mean"].shape == (4, 1)
    assert dataclasses.replace(codes, side={}).to("cpu").side == {}
