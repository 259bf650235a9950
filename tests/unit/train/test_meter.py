"""The memory gauge: what a pass held, and what the whole process did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saebench.train import meter
from saebench.train.meter import PeakMemory, process_peak

BIG = 200_000_000


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
