"""The exception tree.

SaebenchError                 everything that saebench raises on purpose; `exit_status` is the command's status
├── SuiteError          2     the suite, the arguments or the material they name are unusable
│   └── Damaged               a file that saebench wrote is not what it wrote
├── PluginError         3     a needed plugin is broken, missing, or breaks its contract
├── MachineError        5     the machine refuses: disk full, folder not writable, not enough memory
└── CellError           4     one cell cannot go on; the others do
    ├── Diverged              a loss or a parameter is not finite
    └── OverBudget            memory or another share would be exceeded

A message says where, what was found, what is allowed, and the next step.
"""

from __future__ import annotations


class SaebenchError(Exception):
    """Base of all errors that a person can act on. `str(error)` is one clear line (or one line a problem)."""

    exit_status = 1


class SuiteError(SaebenchError):
    """The suite, the arguments, or the model or data they name cannot be used."""

    exit_status = 2


class Damaged(SuiteError):
    """A file that saebench wrote is not what it wrote, or is missing.

    Attributes:
        found: Which file and what is wrong with it, as the beginning of a sentence: whoever makes it again says so behind it.
    """

    def __init__(
        self, found: str, advice: str = "Run the suite again into this folder: what is damaged is made again."
    ) -> None:
        super().__init__(f"{found}. {advice}")
        self.found = found


class PluginError(SaebenchError):
    """A plugin that is needed is broken, missing, or breaks its contract."""

    exit_status = 3


class MachineError(SaebenchError):
    """The machine refuses: no space left, folder not writable, not enough memory."""

    exit_status = 5


class CellError(SaebenchError):
    """One cell cannot go on. `status` is what its record says."""

    exit_status = 4
    status = "failed"


class Diverged(CellError):
    """A loss or a parameter stopped being finite."""

    status = "diverged"


class OverBudget(CellError):
    """A share (memory first of all) would be exceeded."""

    status = "over_budget"
