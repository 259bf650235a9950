"""Passes on a simulated card: killed and gone on, out of memory, over their share."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from simulated_device import simulated_cuda

from saebench.host import load_catalog
from saebench.train import Watch, train_pass

pytestmark = pytest.mark.cpu("makes a card of its own")

D_SAE = 64
CONFIGS = {
    "topk": {"d_sae": D_SAE, "k": 3, "dead_window": 0.05},
    "batch-topk": {"d_sae": D_SAE, "k": 3, "dead_window": 0.05},
    "jumprelu": {"d_sae": D_SAE, "target_l0": 4.0},
    "relu-l1": {"d_sae": D_SAE, "resample_at": (0.5, 0.8), "l1_coefficient": 1.5},
    "expander": {"d_sae": D_SAE, "k": 3, "degree": 4, "reaim_every": 0.3, "reaim_below": 3, "reaim_most": 1.0},
}


class Killed(BaseException):
    """As abrupt as a kill."""


class Killer(Watch):
    """Kills the pass after some steps of all cells together; notes who went on, and what was said."""

    def __init__(self, after=None):
        self.left, self.resumptions, self.lines = after, {}, []

    def advanced(self, tokens):
        self.left = None if self.left is None else self.left - 1
        if self.left == 0:
            raise Killed

    def resumed(self, cell, tokens):
        self.resumptions[cell.cell_id] = tokens

    def say(self, line):
        self.lines.append(line)


def cell_of(kit, catalog, name, **changes):
    config = dataclasses.asdict(catalog.architecture(name).spec.config(**{**CONFIGS[name], **changes}))
    return kit.cell(name, config=config, d_sae=config["d_sae"], tokens=64 * 16)


def test_a_killed_pass_goes_on_and_ends_bitwise_equal(kit, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)
    catalog = load_catalog()
    cells = [cell_of(kit, catalog, name) for name in CONFIGS]

    def run(folder, watch=None):
        jobs = [(cell, kit.source()) for cell in cells]
        made = train_pass(jobs, catalog, device="cuda", progress=watch, snapshots=folder, snapshot_every_s=0.0)
        return {cell.cell_id: outcome for cell, outcome in made}

    with simulated_cuda():
        whole = run(None)
        assert {outcome.status for outcome in whole.values()} == {"ok"}, [o.error for o in whole.values()]
        with pytest.raises(Killed):
            run(tmp_path, Killer(52))
        watch = Killer()
        ended = run(tmp_path, watch)
        assert watch.resumptions.keys() == whole.keys() and not watch.lines
        assert all(kit.equal(whole[name], ended[name]) for name in whole)


def test_a_cell_that_the_card_cannot_hold_is_over_budget_and_the_others_go_on(kit):
    catalog = load_catalog()
    small, large = cell_of(kit, catalog, "topk"), cell_of(kit, catalog, "topk", d_sae=4096)
    with simulated_cuda(memory_bytes=1 << 20):
        made = train_pass([(cell, kit.source()) for cell in (small, large)], catalog, device="cuda")
        outcomes = {cell.cell_id: outcome for cell, outcome in made}
        assert outcomes[small.cell_id].ok, outcomes[small.cell_id].error
        assert outcomes[small.cell_id].peak_memory_bytes > 0
        assert outcomes[large.cell_id].status == "over_budget"
        assert "CUDA out of memory" in outcomes[large.cell_id].error["message"]


def test_a_cell_over_its_share_is_refused_before_it_takes_memory(kit):
    catalog = load_catalog()
    cell = cell_of(kit, catalog, "topk", d_sae=4096)
    with simulated_cuda() as card:
        ((_, outcome),) = train_pass([(cell, kit.source())], catalog, device="cuda", memory_share_bytes=1 << 16)
        assert outcome.status == "over_budget" and "memory share" in outcome.error["message"]
        assert card.peak_bytes < 1 << 16
        assert torch.cuda.memory_allocated() == card.held_bytes
