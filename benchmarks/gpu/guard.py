"""Runs one section in a process of its own, and ends it when its time is up: whatever it does, the next one begins."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EMPTY: dict[str, Any] = {"ended": False, "figures": [], "failures": [], "facts": {}}
LAST_LINES = 8
GRACE_S = 5.0
"""Between the request to end and the kill."""


def guarded(
    command: Sequence[str], notes: Path, log: Path, *, limit_s: float, env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Runs a command that writes `notes`.

    Args:
        command: Of the section.
        notes: What it finds (see `notes.Notes`).
        log: Gets all that it prints, behind what is there.
        limit_s: Seconds that it may take; at most `GRACE_S` more pass before it is killed with all its children.

    Returns:
        Its notes, with `status` (ok, failed, cut), `seconds`, and `cpu_s`: how long processors worked for it. A cut
        section has what it found until then.
    """
    started, worked = time.perf_counter(), _worked()
    cut = False
    with log.open("ab") as out:
        begin = out.tell()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            cut, code = True, _end(child)
        except BaseException:
            _end(child)
            raise
    found: dict[str, Any] = dict(EMPTY)
    if notes.exists():
        found = json.loads(notes.read_text("utf-8"))
    found["failures"] = list(found["failures"])
    if cut:
        found["facts"]["cut"] = f"after {limit_s:.0f} s, its limit; figures found before that are kept"
    elif code or not found["ended"]:
        printed = log.read_bytes()[begin:].decode("utf-8", "replace").strip().splitlines()
        found["failures"].append(
            f"its process ended with status {code}; its last lines: " + " | ".join(printed[-LAST_LINES:])
        )
    status = "failed" if found["failures"] else "cut" if cut else "ok"
    return {"status": status, "seconds": time.perf_counter() - started, "cpu_s": _worked() - worked, **found}


def _worked() -> float:
    """Seconds that processors worked for our children so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _end(child: subprocess.Popen[bytes]) -> int:
    """Ends a child and its children: first asks, then kills."""
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            continue
    return child.wait()
