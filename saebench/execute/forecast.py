"""What a run says before it starts: how long it will take, on what grounds, and whether disk and memory can hold it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from saebench.api.errors import MachineError
from saebench.artifacts import RunFolder, digest
from saebench.execute.resume import FolderState, written_plan

if TYPE_CHECKING:
    from saebench.cells.cell import Cell
    from saebench.cells.plan import Estimate, Plan
    from saebench.host import Catalog
    from saebench.lm.book import ModelBook
    from saebench.measure.place import Place, Room
    from saebench.plan.forecast.memory import Needs
    from saebench.plan.forecast.rates import Measure, Rates

LONG_S = 300.0
"""A run that is assumed to take longer is worth the seconds of measuring the machine."""


HOPELESS = 2
"""A run that needs this many times the free memory is refused: freeing some cannot help."""

NOTHING_FITS = (
    "No smaller activations.shuffle, train.batch, d_sae or number of seeds fits. Use fewer hookpoints, or a device "
    "with more memory."
)


@dataclass(frozen=True)
class Short:
    """Too little memory. `needed` in bytes; `hopeless`: there is less, however much of it becomes free."""

    message: str
    needed: int
    hopeless: bool


def memory_short(plan: Plan, room: Room, catalog: Catalog, facts: ModelBook) -> Short | None:
    """That a plan needs more memory than is free, and what would fit; None where it does not.

    Args:
        plan: With its estimate.
        room: Of the place where it runs.
        catalog, facts: As the plan was made with.
    """
    from saebench.plan.forecast.fitting import fitting
    from saebench.plan.forecast.memory import Memory
    from saebench.plan.print import format_bytes

    def need(memory: Memory) -> int:
        return memory.device if room.on_card else memory.process

    predicted = plan.estimate
    needed = predicted.device_memory_bytes if room.on_card else predicted.memory_bytes
    if needed <= room.free:
        return None
    whole = f"that has {format_bytes(room.total)}" + " for tensors" * room.on_card
    there = f"{format_bytes(room.free)} are free" if room.free < room.total else whole
    needs = _needs(plan, room, catalog, facts)
    parts = needs.memory().device_parts() if room.on_card else predicted.memory_parts
    listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in parts.items() if name != "stores" and size)
    smaller = fitting(needs, need, room.free)
    changes = [f"{change} ({format_bytes(size)})" for change, size in smaller]
    fits = f"These would fit: {'; '.join(changes)}." if changes else NOTHING_FITS
    return Short(
        f"the plan needs {format_bytes(needed)} of memory on {room.of}, but {there} ({listed}; one phase at "
        f"a time). {fits}",
        needed,
        needed > room.total,
    )


def _needs(plan: Plan, room: Room, catalog: Catalog, facts: ModelBook) -> Needs:
    from saebench.plan.forecast.estimate import gather

    return gather(
        plan.cells,
        plan.cohorts,
        plan.groups,
        catalog=catalog,
        facts=facts,
        free_bytes=room.free,
        memory_gb=plan.budget.get("memory_gb"),
        compiles=room.compiles,
    )


class Forecast:
    """The estimate of one run.

    Args:
        plan: As made; `self.plan` has the estimate that rests on measured rates, where the run is long.
        run: Its folder.
        catalog, facts: As the plan was made with.
        place: Where it runs.
        measure: Measures this machine.
    """

    def __init__(
        self, plan: Plan, run: RunFolder, catalog: Catalog, facts: ModelBook, place: Place, measure: Measure
    ) -> None:
        self.plan, self.run, self._catalog, self._facts = plan, run, catalog, facts
        self._room = place.room()
        self._state = FolderState(run, lambda line: None)  # what is damaged is said when it is made again
        self._rates: Rates = place.assumed()
        left = [cell for cell in plan.cells if self._status(cell) is None]
        long = self._estimate(left).seconds > LONG_S
        if long or plan.estimate.basis.get("source") == "measured":
            # what the plan was calibrated with just now is in the machine's profile: asking again measures nothing
            self._rates = measure(plan.cells, plan.datasets)
            self.plan = replace(plan, estimate=self._estimate(plan.cells))

    def is_written(self, say: Callable[[str], None]) -> bool:
        """True when the folder's plan is this one; its estimate, made before any work, stays."""
        written = written_plan(self.run, say)
        if written is not None and written.get("suite") != self.plan.suite:
            say(
                f"{self.run.plan}: was the plan of suite {written.get('suite')!r}, and is that of {self.plan.suite!r} "
                "now. "
                "What belongs to the other suite stays as it is"
            )
        return written is not None and digest(written | {"estimate": None}) == digest(
            self.plan.to_json() | {"estimate": None}
        )

    def lines(self, cells: Sequence[Cell], retry_failed: bool) -> Iterator[str]:
        """What to say before these cells run; nothing where all are done.

        Raises:
            MachineError: The disk cannot hold what they write, or the memory by far not what they need.
        """
        from saebench.plan.print import format_basis, format_bytes, format_time

        left = self._left(cells, retry_failed)
        if not left:
            return
        predicted = self._estimate(left)
        rest = replace(self.plan, cells=tuple(left), estimate=predicted)
        short = memory_short(rest, self._room, self._catalog, self._facts)
        if short and (short.hopeless or short.needed > HOPELESS * self._room.free):
            raise MachineError(short.message)
        self._check_disk(predicted)
        disk, memory = format_bytes(predicted.disk_bytes), format_bytes(predicted.memory_bytes)
        yield f"predicted: {format_time(predicted)}; disk {disk}, memory about {memory}"
        yield f"  {format_basis(predicted)}"
        if short:
            yield f"warning: {short.message}"

    def seconds(self, cells: Sequence[Cell], retry_failed: bool) -> Mapping[str, float]:
        """Predicted seconds by kind of phase, of what is left to do among these cells."""
        return self._estimate(self._left(cells, retry_failed)).phases

    def _left(self, cells: Sequence[Cell], retry_failed: bool) -> list[Cell]:
        done = ("ok",) if retry_failed else ("ok", "failed", "diverged", "over_budget", "skipped")
        return [cell for cell in cells if self._status(cell) not in done]

    def _check_disk(self, predicted: Estimate) -> None:
        from saebench.plan.print import format_bytes, format_disk

        there = min(_size(self.run.root / "activations"), predicted.store_bytes)
        need = predicted.disk_bytes - there
        free = shutil.disk_usage(self.run.root).free
        if need > free:
            stored = any(c.model is not None and c.activations.source == "store" for c in self.plan.cohorts)
            steps = ["free some space", "choose another folder with --out"]
            if need - (predicted.store_bytes - there) <= free:  # else it is not the activations that are too much
                steps += ["ask for fewer tokens"] + stored * ["use `activations: {source: live}`"]
            raise MachineError(
                f"{self.run.root}: the run writes about {format_bytes(need)} ({format_disk(predicted)}), but only "
                f"{format_bytes(free)} of the disk are free. "
                f"{', '.join(steps[:-1]).capitalize()} or {steps[-1]}."
            )

    def _estimate(self, cells: Sequence[Cell]) -> Estimate:
        from saebench.plan.forecast.estimate import predict

        part = replace(self.plan, cells=tuple(cells))
        return predict(_needs(part, self._room, self._catalog, self._facts), self._rates)

    def _status(self, cell: Cell) -> str | None:
        facts = self._state.facts(cell)
        return facts["status"] if facts is not None else None


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:
        return 0
