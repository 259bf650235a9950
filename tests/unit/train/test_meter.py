"""What a step is charged. The memory gauge: what a pass held, and what the whole process did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saebench.api import Cost, SparseCodes
from saebench.train import meter
from saebench.train.meter import Meter, PeakMemory, process_peak

BIG = 200_000_000


def test_a_step_is_charged_the_entries_that_kernels_work_on_also_those_that_are_zero() -> None:
    cost = Cost(
        n_parameters=1, stored_bytes=4, train_flops_per_token=10, train_flops_per_active=7, step_flops=100,
        encode_flops_per_token=1, workspace_bytes_per_token=0, expected_l0=2.0,
    )  # fmt: skip
    codes = SparseCodes(
        torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0]), torch.tensor([0, 1, 2, 0, 3]), torch.tensor([0, 3, 5]), d_sae=4
    )
    counting = Meter(4, cost, d_sae=4)
    counting.charge_step(2, codes)
    assert (counting.tokens, counting.flops) == (2, 2 * 10 + 100 + 5 * 7)
    counting.charge_step(2, None, more_flops=3)  # where no codes are told, what the config aims at
    assert counting.flops == 2 * (2 * 10 + 100) + 5 * 7 + 4 * 7 + 3
    again = Meter(4, cost, d_sae=4)
    again.load_state(counting.state())
    assert again.flops == counting.flops


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the mark cannot be reset here")
def test_the_mark_of_a_pass_starts_anew_and_that_of_the_process_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = PeakMemory(torch.device("cpu"), 1)
    monkeypatch.setattr(meter, "_highest", {})  # of other tests in this process
    before = first.read()
    held = torch.ones(BIG // 4)
    most = first.read()
    assert most >= before + BIG // 2
    del held
    later = PeakMemory(torch.device("cpu"), 2)
    assert later.read() < most - BIG // 2
    assert process_peak("cpu") > most - 5_000_000  # the system counts pages in batches
