"""Two passes over the same cells on the device, and one that is killed three times and goes on: equal bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from material import ARCHITECTURES, PARENT, Sizes, Vectors, activations, cell_of
from notes import Notes

from saebench.cells.cell import Cell
from saebench.host import Catalog, load_catalog
from saebench.measure.machine import n_threads, run_numerics
from saebench.train import Watch, save_outcome, train_pass
from saebench.train.outcome import TrainOutcome
from sections import Setting


class Killed(BaseException):
    """As abrupt as a kill: nothing catches it."""


class Killer(Watch):
    """Kills the pass after a number of steps of all cells together; notes which cells went on from a snapshot."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.steps, self.resumptions = after, 0, set[str]()

    def advanced(self, tokens: int) -> None:
        """See `Watch`."""
        self.steps += 1
        if self.steps == self.after:
            raise Killed

    def resumed(self, cell: Cell, tokens: int) -> None:
        """See `Watch`."""
        self.resumptions.add(cell.entry)


class Pass:
    """The cells of one pass, as often as it is asked for.

    Args:
        parents: Checkpoints that its children start from, by cell id.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        source: Vectors,
        catalog: Catalog,
        device: torch.device,
        parents: Mapping[str, Path],
    ) -> None:
        self.cells, self.source, self.catalog, self.device, self.parents = cells, source, catalog, device, parents

    def run(self, snapshots: Path | None = None, watch: Watch | None = None) -> dict[str, TrainOutcome]:
        """What became of each cell, by architecture."""
        jobs = [(cell, self.source) for cell in self.cells]
        more = {"parents": self.parents, "snapshots": snapshots, "snapshot_every_s": 0.0, "progress": watch}
        return {cell.entry: out for cell, out in train_pass(jobs, self.catalog, device=self.device, **more)}


def apart(one: TrainOutcome, other: TrainOutcome) -> list[str]:
    """What differs between two outcomes: names of tensors, or `facts`."""
    if one.module is None or other.module is None:
        return [f"{outcome.status}: {outcome.error}" for outcome in (one, other)]
    left, right = one.module.state_dict(), other.module.state_dict()
    names = [name for name in left.keys() | right.keys() if name not in right or name not in left]
    names += [name for name in left if name in right and not torch.equal(left[name], right[name])]
    return names + ([] if one.to_json() == other.to_json() else ["facts"])


def run(notes: Notes, setting: Setting) -> None:
    catalog, device = load_catalog(), setting.place
    sizes = Sizes(64, 1024, 16, 512, 60) if setting.is_cuda else Sizes(64, 512, 8, 256, 30)
    sizes = Sizes(32, 256, 8, 128, 8) if setting.short else sizes
    notes.fact("sizes", sizes.__dict__)
    parent = cell_of(PARENT, Sizes(sizes.d_in, sizes.d_sae, sizes.k, sizes.batch, 10), catalog)
    cells = [cell_of(name, sizes, catalog, parent=parent if name == "ssae" else None) for name in ARCHITECTURES]
    source = Vectors(activations(8 * sizes.batch + 77, sizes.d_in, torch.device("cpu")))
    kept = setting.scratch / "parent"
    os.fsync = lambda _handle: None  # no waiting for the disk: nothing here pulls the plug
    with run_numerics(n_threads()):
        notes.check("deterministic operators are asked for", torch.are_deterministic_algorithms_enabled())
        alone = Pass([parent], source, catalog, device, {}).run()[PARENT]
        save_outcome(alone, parent, kept)
        a_pass = Pass(cells, source, catalog, device, {parent.cell_id: kept})
        first = a_pass.run()
        for name, outcome in first.items():
            notes.check(f"{name}: it trains", outcome.ok, str(outcome.error))
        second = a_pass.run()
        snapshots, watch = setting.scratch / "snapshots", Killer()
        steps = len(cells) * sizes.steps
        for after in (steps // 3, steps // 5, steps // 4 + 1):  # from the last kill on
            try:
                a_pass.run(snapshots, Killer(after))
                notes.fail("the pass that was to be killed ended")
            except Killed:
                pass
        third = a_pass.run(snapshots, watch)
        single = {cell.entry: Pass([cell], source, catalog, device, a_pass.parents).run()[cell.entry] for cell in cells}
    notes.check("every cell went on from its snapshot", watch.resumptions == set(ARCHITECTURES), str(watch.resumptions))
    ways = {"again": second, "when killed three times": third, "when alone": single}
    for name in ARCHITECTURES:
        for way, found in ways.items():
            different = apart(first[name], found[name])
            notes.check(f"{name}: equal bits {way}", not different, ", ".join(different))
