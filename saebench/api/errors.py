"""The exception tree.

SaebenchError                 everything that saebench raises on purpose; `exit_status` is the command's status
├── SuiteError          2     the suite, the arguments or the material they name are unusable
│   └── Damaged               a file that saebench wrote is not what it wrote
├── PluginError         3     a needed plugin is broken, missing, or breaks its contract
│   └── NotFinite             a module gave values that are not finite
├── MachineError        5     the machine refuses: disk full, folder not writable, not enough memory
└── CellError           4     one cell cannot go on; the others do
    ├── Diverged              a loss, a parameter or a reconstruction is not finite, or the FVU is over 10
    └── OverBudget            memory or another share would be exceeded

A message says where, what was found, what is allowed, and the next step. Any exception, also one that cannot be
printed, becomes text by `said`, `first_line`, `describe` or `recorded`.
"""

from __future__ import annotations

import sys
from pathlib import PurePath
from types import TracebackType

from saebench.base.text import one_line, shown, without_folders


class SaebenchError(Exception):
    """Base of all errors that a person can act on. `str(error)` is one clear line (or one line a problem)."""

    exit_status = 1


class SuiteError(SaebenchError):
    """The suite, the arguments, or the model or data they name cannot be used."""

    exit_status = 2


class Damaged(SuiteError):
    """A file that saebench wrote is not what it wrote, or is missing.

    Attributes:
        found: Which file and what is wrong with it, as the beginning of a sentence: whoever makes it again says so
            behind it.
    """

    def __init__(
        self,
        found: str,
        advice: str = "Run the suite again into this folder: it is made again. Or remove it, where no suite needs it "
        "any more.",
    ) -> None:
        super().__init__(f"{found}. {advice}")
        self.found = found


class PluginError(SaebenchError):
    """A plugin that is needed is broken, missing, or breaks its contract."""

    exit_status = 3


class NotFinite(PluginError):
    """A module gave values that are not finite."""


class MachineError(SaebenchError):
    """The machine refuses: no space left, folder not writable, not enough memory."""

    exit_status = 5


class CellError(SaebenchError):
    """One cell cannot go on. `status` is what its record says."""

    exit_status = 4
    status = "failed"


DIVERGED_ADVICE = (
    "Look at what `saebench plan` notes of the data (giant rows, coordinates far from zero), then lower train.lr."
)
"""What to do about an SAE that diverged."""


class Diverged(CellError):
    """A loss, a parameter or a reconstruction stopped being finite, or the FVU ended over `DIVERGED_FVU`."""

    status = "diverged"


class OverBudget(CellError):
    """A share (memory first of all) would be exceeded."""

    status = "over_budget"


class Escaped(Exception):
    """A plugin raised what would end the process (SystemExit, GeneratorExit, ...): its `__cause__`."""


class contained:
    """Around a call into a plugin: an exception that would end the process becomes `Escaped`, any other goes through.

    KeyboardInterrupt and its subclasses go through as well: they come from a person or a signal, not from the plugin.
    Put no `yield` into it: a generator that is closed there raises GeneratorExit, which is no fault of a plugin.
    """

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None and not isinstance(error, Exception | KeyboardInterrupt):
            raise Escaped(type(error).__name__) from error


def _raised(error: BaseException) -> BaseException:
    """The exception as it was raised, before `contained` made an ordinary one of it."""
    return error.__cause__ if isinstance(error, Escaped) and error.__cause__ is not None else error


def said(error: BaseException) -> str:
    """All that an exception says, fit to be printed; its type where it says nothing or cannot be printed."""
    error = _raised(error)
    try:
        with contained():
            text = str(error)
    except Exception as unprintable:  # noqa: BLE001 - its text may raise anything
        return f"{type(error).__name__} (its text cannot be shown: {type(_raised(unprintable)).__name__})"
    return shown(text.strip()) or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, never empty, at most 1,000 characters."""
    return one_line(said(error).splitlines()[0])


def describe(error: BaseException) -> str:
    """`TypeError: what it said`, on one line."""
    name, line = type(_raised(error)).__name__, first_line(error)
    return line if line.startswith(name) else f"{name}: {line}"


OURS = frozenset({"saebench", "torch", "numpy", "scipy", "pandas", "transformers", "datasets", "safetensors", "pluggy"})
"""Packages in which no plugin's own line is found."""


def place(error: BaseException) -> str:
    """Where a plugin's own code was when it raised: ` (model.py, line 23)`; empty where it was in none."""
    found, trace = "", _raised(error).__traceback__
    while trace is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in OURS and package not in sys.stdlib_module_names:
            name = PurePath(trace.tb_frame.f_code.co_filename).name
            found = f" ({name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


def recorded(error: BaseException) -> dict[str, str]:
    """An exception as a record holds it: `{type, message}`, the same on every machine. Of one that nobody raised on
    purpose, the message says where in a plugin it was."""
    where = "" if isinstance(_raised(error), SaebenchError) else place(error)
    return {"type": type(_raised(error)).__name__, "message": without_folders(first_line(error)) + where}
