"""One pass over activations in which many cells train: each batch is read once, and each cell takes its own step."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import torch

from saebench.activations.sources.training import TrainingSource
from saebench.api import CellError, MachineError
from saebench.api.errors import Damaged, contained
from saebench.artifacts import has_checkpoint
from saebench.cells.cell import Cell
from saebench.host import Catalog
from saebench.train.cell import CellRun
from saebench.train.feed import Feed
from saebench.train.meter import PeakMemory
from saebench.train.outcome import TrainOutcome
from saebench.train.snapshot import Snapshots
from saebench.train.watch import Watch

Job = tuple[Cell, TrainingSource]


def train_pass(
    jobs: Sequence[Job],
    catalog: Catalog,
    *,
    parents: Mapping[str, Path] | None = None,
    device: str | torch.device = "cpu",
    memory_share_bytes: int | None = None,
    progress: Watch | None = None,
    snapshots: Path | None = None,
    snapshot_every_s: float = 120.0,
) -> Iterator[tuple[Cell, TrainOutcome]]:
    """Trains cells side by side (or fits them; a control without `fit` is only built).

    For every batch index each distinct source gives one batch, and every cell on it takes its own step, with its own
    learning rate, schedule, generator, meter and stop. A cell's result depends on the cell and its source alone, bit
    for bit on one device and thread count: never on its neighbours, on being alone, or on having been killed and
    restored. A cell that fails, diverges or ends leaves; the others continue. One that finds no memory beside others is
    trained again alone, after them, and ends as `over_budget` only if it finds none there either.

    Args:
        jobs: Cells and their sources. None may be the parent of another.
        catalog: Installed plugins.
        parents: Checkpoint folder by `cell_id`; a child whose parent has none there is skipped.
        device: Where to train.
        memory_share_bytes: Refuse a cell whose parameters, gradients, moments and workspace need more; None for no
            limit.
        progress: Is told how the pass proceeds.
        snapshots: Folder for snapshots: cells found there continue from them; None for none.
        snapshot_every_s: Seconds between two.

    Yields:
        Each cell's outcome as soon as it is known; save it before asking for the next. What goes wrong with a cell is
        its status and error. Errors of the machine (disk full) and damaged files of ours are raised.
    """
    device = torch.device(device)
    watch = progress or Watch()
    keeper = Snapshots(snapshots, snapshot_every_s, device, watch.say)
    for cell, _ in jobs:
        watch.started(cell)
    again: list[Job] = []

    def ended(some: Sequence[Job]) -> Generator[CellRun]:
        return _Pass(some, catalog, parents or {}, device, memory_share_bytes, watch, keeper).run()

    with closing(ended(jobs)) as runs:
        for run in runs:
            if run.out_of_memory and len(jobs) > 1:
                again.append((run.cell, run.feed.source))
            else:
                yield run.cell, run.outcome
            keeper.drop(run)
    for job in again:
        with closing(ended([job])) as runs:
            for run in runs:
                yield run.cell, run.outcome
                keeper.drop(run)


class _Pass:
    """One pass: its cells, its feeds."""

    def __init__(
        self,
        jobs: Sequence[Job],
        catalog: Catalog,
        parents: Mapping[str, Path],
        device: torch.device,
        memory_share_bytes: int | None,
        watch: Watch,
        keeper: Snapshots,
    ) -> None:
        self.catalog, self.parents, self.device, self.share = catalog, parents, device, memory_share_bytes
        self.watch, self.keeper = watch, keeper
        _warm_up()
        self.memory = PeakMemory(device, len(jobs))
        self.feeds: dict[tuple[int, int, int], Feed] = {}
        self.runs = [self._new(cell, source) for cell, source in jobs]

    def _new(self, cell: Cell, source: TrainingSource) -> CellRun:
        key = id(source), cell.train.batch, cell.data_seed
        if key not in self.feeds:
            self.feeds[key] = Feed(source, *key[1:], self.device)
        return CellRun(cell, self.feeds[key], self.catalog, self.device, self.watch)

    def run(self) -> Generator[CellRun]:
        """Yields each cell's run when it has ended and is closed."""
        try:
            yield from self._all()
        finally:
            for feed in self.feeds.values():
                feed.end()

    def _all(self) -> Iterator[CellRun]:
        live: list[CellRun] = []
        while self.runs:
            run = self._begin(self.runs.pop(0))
            if run.has_steps_left:
                live.append(run)
            else:
                yield self._end(run)
            del run  # its module is the reader's alone now
        for feed in self.feeds.values():
            feed.drop_sample()
        # cells restored from snapshots may be at different batches: those ahead wait until the others have caught up
        index = min((run.position for run in live), default=0)
        for feed in self.feeds.values():
            feed.begin(index)
        while live:
            for feed in self.feeds.values():
                if readers := [run for run in live if run.feed is feed]:
                    self._batch(feed, readers, index)
            index += 1
            ended = [run for run in live if not run.has_steps_left]
            live = [run for run in live if run.has_steps_left]
            for feed in self.feeds.values():
                if all(run.feed is not feed for run in live):
                    feed.end()
            while ended:
                yield self._end(ended.pop(0))
            if live:
                self.keeper.save(live)

    def _begin(self, run: CellRun) -> CellRun:
        """Prepares a cell and restores it where it has a usable snapshot."""
        cell = run.cell
        folder = self.parents.get(cell.parent) if cell.parent is not None else None
        if cell.parent is not None and (folder is None or not has_checkpoint(folder, cell.parent)):
            run.skip(
                f"{cell.label}: its parent cell {cell.parent[:8]} has no checkpoint, so there is nothing to start from"
            )
            return run
        with _read_for([run]):
            _ = run.feed.sample  # read here, so that no cell pays for it on its clock
        if not run.outcome.ok:
            return run
        with run.attempt(wait=True):
            run.prepare(folder, self.share)
        if run.has_steps_left:
            try:
                if self.keeper.load(run):
                    self.watch.resumed(cell, min(run.position * run.feed.batch, cell.tokens))
            except ValueError:
                run = CellRun(cell, run.feed, self.catalog, self.device, self.watch)
                with run.attempt(wait=True):
                    run.prepare(folder, self.share)
        return run

    def _batch(self, feed: Feed, runs: Sequence[CellRun], index: int) -> None:
        """One batch of one feed: a step of every cell that is due."""
        shared = None
        with _read_for(runs):
            shared = feed.next()
        for run in runs:
            if run.position != index or not run.outcome.ok:
                continue
            run.outcome.waited_s += feed.waited
            before = min(index * feed.batch, run.cell.tokens)
            with run.attempt(wait=len(runs) > 1):
                if shared is None:
                    raise CellError(
                        f"{run.label}: the data ended after {index * feed.batch:,} of {run.cell.tokens:,} tokens. "
                        "Training batches must not end."
                    )
                run.step(shared)
            if run.outcome.ok:
                self.watch.advanced(min((index + 1) * feed.batch, run.cell.tokens) - before)

    def _end(self, run: CellRun) -> CellRun:
        """Makes the inference form of a cell whose training went well, and closes it."""
        if run.outcome.ok:
            with run.attempt(wait=True):
                run.finish()
        outcome = run.close()
        if outcome.device_s is not None:
            outcome.peak_memory_bytes, outcome.peak_memory_scope = self.memory.read(), self.memory.scope
        if run.out_of_memory and self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.watch.advanced(max(0, run.cell.tokens - outcome.steps * run.feed.batch))
        return run


def _warm_up() -> None:
    """Lets torch load what its optimisers need, seconds in a fresh process: no cell should pay for it on its clock."""
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


@contextmanager
def _read_for(runs: Sequence[CellRun]) -> Iterator[None]:
    """Reads from a feed in the block. Data that cannot be had ends the cells that read it.

    Raises:
        MachineError: The machine refuses.
        Damaged: A file of ours is damaged.
    """
    try:
        with contained():
            yield
    except (MachineError, Damaged):
        raise
    except Exception as error:
        for run in runs:
            with run.attempt():
                raise error
