"""Records: immutable JSON facts, one file a score (or a group). The leaderboard is made from these alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from saebench.api.errors import SuiteError
from saebench.artifacts.atomic import write_json
from saebench.artifacts.layout import RunFolder

RECORD_SCHEMA_VERSION = 1
STATUSES = ("ok", "failed", "diverged", "over_budget", "skipped")
_KEYS = {
    "cell": ("cell_id", "score_id", "facts", "measured"),
    "group": ("group_id", "facts", "measured"),
}


def read_record(path: Path, kind: str = "cell") -> dict[str, Any]:
    """One record, checked for its shape.

    Raises:
        SuiteError: Not JSON, not such a record, or of a schema version this saebench does not read.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise SuiteError(
            f"{path}: not readable as JSON ({error}). Delete the file and run again, or restore it."
        ) from error
    if not isinstance(record, dict) or record.get("kind") != kind:
        raise SuiteError(
            f"{path}: not a {kind} record of saebench. Keep only saebench records below records/ and groups/."
        )
    if record.get("schema_version") != RECORD_SCHEMA_VERSION:
        raise SuiteError(
            f"{path}: schema_version is {record.get('schema_version')!r}; this saebench reads {RECORD_SCHEMA_VERSION}. Use the saebench that wrote it."
        )
    missing = [key for key in _KEYS[kind] if key not in record]
    if missing or record["facts"].get("status") not in STATUSES:
        raise SuiteError(
            f"{path}: damaged record (missing {', '.join(missing) or 'a known status'}). Delete the file and run again, or restore it."
        )
    return record


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a cell or group record, whole or not at all."""
    write_json(path, {"schema_version": RECORD_SCHEMA_VERSION, **record})


def iter_records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All cell records below `folder/records`, in path order."""
    for path in RunFolder(Path(folder)).record_paths():
        yield path, read_record(path)


def iter_groups(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All group records below `folder/groups`, in path order."""
    for path in RunFolder(Path(folder)).group_paths():
        yield path, read_record(path, "group")
