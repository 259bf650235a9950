"""Matching on the simulated card: the same pairs as on the processor, by every method, from tensors and from arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from simulated_device import Card, simulated_cuda

from saebench.matching import match
from saebench.matching.solve.nearest import best_cosines

METHODS: tuple[dict[str, Any], ...] = (
    {"method": "dense"},
    {"method": "sparse"},
    {"method": "sparse", "signed": False},
)


@pytest.fixture
def card():
    with simulated_cuda() as card:
        yield card


@pytest.fixture(scope="module")
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    A = torch.randn(300, 16, generator=draws)
    return A, A[torch.randperm(300, generator=draws)] + 0.5 * torch.randn(300, 16, generator=draws)


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_the_pairs_are_those_of_the_processor(options: dict[str, Any], sides: Any, card: Card) -> None:
    A, B = sides
    here = match(A, B, **options)
    for there in (match(A.cuda(), B.cuda(), **options), match(A.numpy(), B.numpy(), device="cuda", **options)):
        assert np.array_equal(here.rows, there.rows) and np.array_equal(here.columns, there.columns)
        assert np.allclose(here.cosines, there.cosines, rtol=0, atol=1e-12)
        assert there.proven and there.relative_gap < 1e-9
    assert card.peak_bytes > A.nbytes + B.nbytes  # it was there


def test_the_best_cosines_are_those_of_the_processor(sides: Any, card: Card) -> None:
    A, B = sides
    for here, there in zip(best_cosines(A, B), best_cosines(A.cuda(), B.cuda()), strict=True):
        assert np.allclose(here, there, rtol=0, atol=1e-6)
