"""The console: which phases are open, how far they are, and a thread that shows it while the work goes on.

Working code only changes numbers; all drawing is done by the thread, some times a second, so that a hot loop pays next
to nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from saebench.base.text import one_line, shown
from saebench.console.capture import captured
from saebench.console.displays import Display, display_of
from saebench.console.render import PhaseView, View
from saebench.console.state_file import StateFile
from saebench.console.time_left import TimeLeft

BEAT_S = 0.2
"""Between two readings of the numbers by the thread."""
NAME_LIMIT = 200
REMEMBERED = 10_000
"""Lines of others that are known to have been said."""


class Phase:
    """A piece of work that is shown while it is open; a tqdm-like bar where its total is known.

    Args:
        console: Whose.
        kind: `training`, `scoring`, ...: the prediction has seconds for each kind.
        detail: What is worked on.
        total, unit: How much there is to do, where that is known.
        amount: How much it makes of all that the prediction knows of its kind.
    """

    def __init__(
        self, console: Console, kind: str, detail: str, total: float | None, unit: str, amount: float | None
    ) -> None:
        self.kind, self.detail, self.total, self.unit, self.amount = kind, detail, total, unit, amount
        self.n = 0.0
        self.note = ""
        self._console, self._before, self._began = console, 0.0, console.clock()
        self.since = datetime.now(UTC)

    def __enter__(self) -> Phase:
        self._console.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends it."""
        self._console.end(self)

    def update(self, n: float = 1) -> None:
        """So much more is done."""
        self.n += n

    def resumed(self, n: float) -> None:
        """So much was done by an earlier run: it does not count into the pace."""
        self.n += n
        self._before += n

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._console.clock() - self._began

    def view(self) -> PhaseView:
        """As it is shown."""
        elapsed, made = self.elapsed, self.n - self._before
        left = (self.total - self.n) * elapsed / made if self.total and made > 0 else None
        left = max(0.0, left) if left is not None else None
        return PhaseView(self.kind, self.detail, self.n, self.total, self.unit, elapsed, left, self.note)


class Console:
    """Phases, cells and lines of one command.

    Args:
        display: Where it is shown.
        clock: Seconds that only grow.
    """

    def __init__(self, display: Display | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self._face = clock, display or Display()
        self._began = self._predicted_at = clock()
        self._phases: list[Phase] = []
        self._outlook: TimeLeft | None = None
        self._title = ""
        self._cells: tuple[int, int] | None = None
        self._file: StateFile | None = None
        self._once: set[str] = set()
        self._lock = threading.RLock()  # a signal handler may speak while its own thread draws

    # --- what the work tells ------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Shows lines that stay, above the bars."""
        with self._lock:
            for line in shown(text).splitlines():
                self._face.say(line)

    def say_once(self, text: str) -> bool:
        """The same, and never again; whether it was said now."""
        with self._lock:
            if text in self._once:
                return False
            if len(self._once) < REMEMBERED:
                self._once.add(text)
            self.say(text)
            return True

    def phase(
        self, kind: str, detail: str = "", *, total: float | None = None, unit: str = "", amount: float | None = None
    ) -> Phase:
        """A phase, to be opened by `with`; see `Phase`."""
        return Phase(self, kind, one_line(detail, NAME_LIMIT), total, unit, amount)

    def expect(
        self, title: str, seconds: Mapping[str, float], amounts: Mapping[str, float], cells: tuple[int, int]
    ) -> None:
        """From now on a run is shown: its predicted seconds by kind, and how many of its cells are done."""
        with self._lock:
            self._title, self._cells = one_line(title, NAME_LIMIT), cells
            self._outlook, self._predicted_at = TimeLeft(seconds, amounts), self.clock()

    def leave(self, kinds: Iterable[str]) -> None:
        """Nothing more comes of these kinds of phases."""
        with self._lock:
            if self._outlook is not None:
                self._outlook.leave(kinds)

    def spared(self, kind: str, amount: float) -> None:
        """So much of a kind of phases need not be done."""
        with self._lock:
            if self._outlook is not None:
                self._outlook.spared(kind, amount)

    def cell_ended(self, line: str) -> None:
        """A cell has its record. Off a terminal that is a line."""
        with self._lock:
            if self._cells is not None:
                self._cells = (self._cells[0] + 1, self._cells[1])
            self._face.cell(one_line(line), self.view())

    @contextmanager
    def kept(self, path: Path) -> Iterator[None]:
        """Keeps the state in a small file beside the work, for `saebench status`; gone at the end."""
        with StateFile(path, self.clock) as self._file:
            try:
                yield
            finally:
                with self._lock:
                    self._file = None

    # --- phases -------------------------------------------------------------------------------------------------------

    def begin(self, phase: Phase) -> None:
        """Opens it."""
        with self._lock:
            self._phases.append(phase)
            self._face.opened(self.view())

    def end(self, phase: Phase) -> None:
        """Closes it, and what was opened within and not closed: a generator that is not read to its end closes late."""
        with self._lock:
            while phase in self._phases:
                inner = self._phases.pop()
                if self._outlook is not None:
                    self._outlook.ended(inner.kind, inner.amount, inner.elapsed)

    # --- what is shown ------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """All that is shown at this instant."""
        share = left = None
        now, inner = self.clock(), self._phases[-1].view() if self._phases else None
        if self._outlook is not None:
            running = {phase.kind: self._running(phase) for phase in self._phases}
            share, left = self._outlook.read(sum(running.values()), now - self._predicted_at)
        return View(self._title, self._cells, share, now - self._began, left, inner)

    def _running(self, phase: Phase) -> float:
        assert self._outlook is not None
        share = min(1.0, phase.n / phase.total) if phase.total else None
        return self._outlook.running(phase.kind, phase.amount, share, phase.elapsed)

    def tick(self) -> None:
        """Shows the state; the thread calls it some times a second."""
        with self._lock:
            view = self.view()
            self._face.show(view)
            if self._file is not None:
                self._file.write(view, self._phases[-1].since if self._phases else None)

    def close(self) -> None:
        """Takes the bars away."""
        with self._lock:
            self._face.close()


_current = Console()
"""Of this process; without `showing` one that shows nothing."""


def current() -> Console:
    """The console of the command that is at work."""
    return _current


def phase(kind: str, detail: str = "", **how: Any) -> Phase:
    """A phase of the command that is at work; see `Console.phase`."""
    return _current.phase(kind, detail, **how)


def say(text: str) -> None:
    """Lines for people on standard error, above the bars where there are any."""
    if _active.is_set():
        _current.say(text)
    elif sys.stderr is not None:
        sys.stderr.write(f"{shown(text)}\n")


_active = threading.Event()


@contextmanager
def showing(*, outputs: bool = True) -> Iterator[Console]:
    """Shows what the block does, on standard error, until it ends; one inside of another changes nothing.

    What libraries print, log or warn meanwhile becomes whole lines above the bars.

    Args:
        outputs: Whether standard output is led there too: so that what a plugin prints does not mix with what a command
            prints.
    """
    global _current
    if _active.is_set():
        yield _current
        return
    outer, console = _current, Console(display_of(sys.stderr, time.monotonic))
    with ExitStack() as stack:
        stack.callback(console.close)
        stack.enter_context(captured(console.say, console.say_once, outputs=outputs))
        stack.enter_context(_beating(console))
        _current = console
        _active.set()
        try:
            yield console
        finally:
            _active.clear()
            _current = outer


@contextmanager
def _beating(console: Console) -> Iterator[None]:
    """A thread that calls `tick`."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            console.tick()

    thread = threading.Thread(target=beat, name="saebench-console", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        with suppress(RuntimeError):
            thread.join(timeout=2.0)
