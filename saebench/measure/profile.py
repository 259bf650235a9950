"""What was measured on this machine before, in the user's cache folder: a second plan need not measure again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from saebench.api.errors import Damaged, SaebenchError
from saebench.artifacts import cache_folder, digest, read_sealed, sealed, write_json
from saebench.cells.cell import ENGINE_VERSION
from saebench.measure.machine import host, n_threads, versions

PROFILE_VERSION = 2
_SEAL = "profile_sha256"
_NAME = "speed-"
MAX_AGE = timedelta(days=7)
"""What is older is measured again: machines are upgraded, and one that was busy then may be quiet now."""


def speed_facts(device: str) -> dict[str, Any]:
    """What decides speed: processor, threads, device, back end."""
    from saebench.nn.kernels import backends

    found = host(device)
    facts: dict[str, Any] = {name: found[name] for name in ("cpu", "cores", "gpu") if name in found}
    return {**facts, "threads": n_threads(), "device": device, "backend": backends.current(device)}


class Profile:
    """Measured values by kind and key, each with its date. A damaged file is named and counts as an empty one.

    Args:
        facts: From `speed_facts`; another machine, or other versions, have another file.
        folder: Where profiles are kept.
        say: Prints one line for people.
    """

    def __init__(
        self, facts: Mapping[str, Any], folder: Path | None = None, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self.facts = dict(facts)
        identity = {
            "profile": PROFILE_VERSION,
            "engine": ENGINE_VERSION,
            "machine": self.facts,
            "versions": versions(),
        }
        self.path = (folder or cache_folder()) / f"{_NAME}{digest(identity, 16)}.json"
        self._open(say)

    @classmethod
    def kept(cls, folder: Path | None = None) -> list[Profile]:
        """Of every machine that is in the folder, under this engine; the newest last.

        A folder that several machines share (a home directory on a cluster) tells one of them what others measured.
        """
        found = []
        with suppress(OSError):
            paths = (folder or cache_folder()).glob(f"{_NAME}*.json")
            for path in sorted(paths, key=lambda path: path.stat().st_mtime):
                with suppress(SaebenchError):
                    content = read_sealed(path, _SEAL)
                    if (content.get("version"), content.get("engine")) == (PROFILE_VERSION, ENGINE_VERSION):
                        profile = cls.__new__(cls)
                        profile.facts, profile.path = dict(content["machine"]), path
                        profile._open(lambda line: None)
                        found.append(profile)
        return found

    def _open(self, say: Callable[[str], None]) -> None:
        self._opened: dict[str, dict[str, Any]] = {}
        try:
            self._opened = self._read()
        except Damaged as error:
            say(f"{error.found}. This machine is measured again")
        except SaebenchError:  # it cannot be read: that costs time, nothing else
            pass
        self._entries = dict(self._opened)
        self._own: dict[str, dict[str, Any]] = {}

    def get(self, kind: str, key: str) -> Any | None:
        """The value, or None where there is none of a recent date."""
        entry = self._entries.get(f"{kind}/{key}")
        return None if entry is None else entry["value"]

    def put(self, kind: str, key: str, value: Any) -> None:
        """Notes a value under today's date."""
        plain = value if isinstance(value, int | float) else asdict(value)
        self._own[f"{kind}/{key}"] = self._entries[f"{kind}/{key}"] = {"date": _now().isoformat(), "value": plain}

    def forget(self) -> None:
        """Drops everything: all is measured anew."""
        self._entries.clear()

    def date(self, keys: Mapping[str, Any]) -> str:
        """Day of the oldest of these values (`kind/key`); today where there are none."""
        dates = [entry["date"] for key in keys if (entry := self._entries.get(key)) is not None]
        return min(dates, default=_now().isoformat())[:10]

    def save(self) -> None:
        """Writes the file, with what other processes measured meanwhile; nothing where the folder cannot be written."""
        with suppress(OSError, SaebenchError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for key, entry in self._read_or_empty().items():
                    if entry != self._opened.get(key):  # not what this process found, and may have forgotten
                        self._entries[key] = entry
                self._entries |= self._own
                content = {
                    "version": PROFILE_VERSION,
                    "engine": ENGINE_VERSION,
                    "machine": self.facts,
                    "entries": self._entries,
                }
                write_json(self.path, sealed(content, _SEAL))

    def _read(self) -> dict[str, dict[str, Any]]:
        """What the file holds of a recent date."""
        if not os.path.lexists(self.path):
            return {}
        entries = read_sealed(self.path, _SEAL)["entries"]
        return {key: entry for key, entry in entries.items() if _fresh(entry)}

    def _read_or_empty(self) -> dict[str, dict[str, Any]]:
        try:
            return self._read()
        except SaebenchError:
            return {}


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _fresh(entry: Mapping[str, Any]) -> bool:
    age = _now() - datetime.fromisoformat(entry["date"])
    return timedelta(0) <= age <= MAX_AGE and entry["value"] is not None
