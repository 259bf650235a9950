"""A small file that tells other processes what a run does just now.

The run's lock says whether it is true: a killed run leaves it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from saebench.artifacts.atomic import temporary_name
from saebench.console.render import View

EVERY_S, SOONEST_S = 2.0, 1.0
"""Seconds between two writings; the second where the phase has changed."""


class StateFile:
    """The file, while a run keeps it. It is no result: a disk that refuses it costs the file alone."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path, self._clock = path, clock
        self._written_at, self._label = clock(), ""

    def __enter__(self) -> StateFile:
        self._remove()  # a killed run's
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, view: View, since: datetime | None) -> None:
        """Writes it, unless that was done just now."""
        label = view.phase.label if view.phase is not None else ""
        if self._clock() - self._written_at < (EVERY_S if label == self._label else SOONEST_S):
            return
        self._written_at, self._label = self._clock(), label
        temporary = temporary_name(self._path)
        with suppress(OSError):
            try:
                temporary.write_text(json.dumps(_state(view, since)), encoding="utf-8")
                os.replace(temporary, self._path)
            finally:
                temporary.unlink(missing_ok=True)


def _state(view: View, since: datetime | None) -> dict[str, Any]:
    phase = view.phase
    return {
        "phase": phase and phase.kind,
        "detail": phase and phase.detail,
        "since": since and since.isoformat(timespec="seconds"),
        "done": phase and phase.n,
        "total": phase and phase.total,
        "unit": phase and phase.unit,
        "note": phase and phase.note,
        "share": view.share,
        "left_s": view.left,
        "pid": os.getpid(),
    }
