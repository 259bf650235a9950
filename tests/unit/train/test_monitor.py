from __future__ import annotations

import torch

from saebench.metrics.reconstruction import FvuAccumulator
from saebench.train.monitor import batch_fvu


def test_fvu_of_a_batch_is_the_metric_s():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 24, generator=generator) * torch.rand(24, generator=generator) + 5.0
    x_hat = x + 0.3 * torch.randn(512, 24, generator=generator)
    reference = FvuAccumulator(24)
    reference.update(x, x_hat)
    assert abs(batch_fvu(x, x_hat) / reference.compute().value - 1) < 1e-5


def test_fvu_by_hand():
    # mean (1, 0); squared distances 1 + 1; errors 1 + 0
    assert batch_fvu(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])) == 0.5


def test_no_variance_or_no_number_is_none():
    constant = torch.full((7, 3), 0.1)
    assert batch_fvu(constant, constant + 1) is None
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert batch_fvu(x, x * float("inf")) is None
