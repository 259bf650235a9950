"""A page never dies of a record: what cannot be shown is found and left out, and the rest is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from saebench.api.errors import SaebenchError, SuiteError, describe
from saebench.leaderboard.read.merge import MergedRecords

T = TypeVar("T")
SOME = 8
"""Records that are tried alone before a fault is laid on one of many."""


class Unreadable(SuiteError):
    """A record with a part that cannot be read; the board is made without it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}. Run the suite again into this folder, or restore the file.")
        self.path, self.reason = path, reason


def surviving(records: MergedRecords, make: Callable[[MergedRecords], T], *, whatever: bool = False) -> T:
    """`make` of these records, without those that it cannot take: each of them is among `left_out`, with the reason.

    Args:
        records: What is there.
        make: Raises `Unreadable` for a record that it cannot take.
        whatever: Any other exception is laid on a record too, which is found by halving. It is raised where records
            fail one and all.

    Raises:
        SuiteError: No record can be read.
    """
    while True:
        try:
            return make(records)
        except Unreadable as error:  # every turn takes a record away
            records = records.without(error.path, error.reason)
        except (SaebenchError, MemoryError):
            raise
        except Exception as error:
            if not whatever or _is_ours(records, make):
                raise
            records = records.without(_culprit(records, make), f"it cannot be shown ({describe(error)})")


def _is_ours(records: MergedRecords, make: Callable[[MergedRecords], object]) -> bool:
    """Whether `make` fails for each of a few records alone: then it is no record's fault."""
    some = records.cells[:: -(-len(records.cells) // SOME)]
    return all(_fails(MergedRecords((cell,), (), records.left_out), make) for cell in some)


def _culprit(records: MergedRecords, make: Callable[[MergedRecords], object]) -> str:
    """The first file, cells before groups, with which and those before it `make` fails, and without it does not."""
    paths = list(dict.fromkeys(record.path for record in (*records.cells, *records.groups)))
    low, high = 0, len(paths)
    while high - low > 1:
        middle = (low + high) // 2
        kept = set(paths[:middle])
        cells = tuple(cell for cell in records.cells if cell.path in kept)
        groups = tuple(group for group in records.groups if group.path in kept)
        failed = _fails(MergedRecords(cells, groups, records.left_out), make)
        low, high = (low, middle) if failed else (middle, high)
    return paths[high - 1]


def _fails(records: MergedRecords, make: Callable[[MergedRecords], object]) -> bool:
    try:
        make(records)
    except Exception as error:  # noqa: BLE001 - what it is decides nothing
        return not isinstance(error, Unreadable)  # that is named when its turn comes
    return False
