"""Records: immutable JSON facts, one file a score (or a group). The leaderboard is made from these alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from saebench.api.errors import Damaged, PluginError
from saebench.artifacts.atomic import write_json
from saebench.artifacts.layout import RunFolder
from saebench.artifacts.proof import check_seal, opened, read_json, sealed
from saebench.artifacts.shapes import misshapen
from saebench.base.text import one_line

RECORD_SCHEMA_VERSION = 2
SEAL = "record_sha256"
NOT_COMPARED = ("suite_digest",)
"""Facts of a plan, not of a score: they differ where partial runs of one suite are merged, or a suite was given a new
entry."""
STATUSES = ("ok", "failed", "diverged", "over_budget", "skipped")
_ADVICE = (
    "Run the suite again into this folder: it is written anew. "
    "Keep only saebench's own files below records/ and groups/."
)


def read_record(path: Path, kind: Literal["cell", "group"] = "cell") -> dict[str, Any]:
    """One record, verified against its own digest and its shape.

    Raises:
        Damaged: Not JSON, not such a record or of another shape, changed after it was written, or of a schema version
            this saebench does not read.
        MachineError: The machine refuses to read it.
    """
    record = read_json(path)
    if not isinstance(record, dict) or record.get("kind") != kind:
        raise Damaged(f"{path}: not a {kind} record of saebench", _ADVICE)
    if record.get("schema_version") != RECORD_SCHEMA_VERSION:
        raise Damaged(
            f"{path}: schema_version is {one_line(repr(record.get('schema_version')), 60)}; this saebench reads "
            f"{RECORD_SCHEMA_VERSION}",
            "Use the saebench that wrote it, or run the suite again.",
        )
    check_seal(path, record, SEAL)
    if wrong := misshapen(kind, record):
        raise Damaged(f"{path}: damaged record ({wrong})", _ADVICE)
    found: dict[str, Any] = record
    return found


def check_record(record: Mapping[str, Any]) -> None:
    """Nothing, where `read_record` will take what `write_record` writes.

    Raises:
        PluginError: It will not, for what a plugin put into the record.
    """
    if wrong := misshapen(record["kind"], sealed(record, SEAL)):
        raise PluginError(f"its record cannot be kept ({wrong}). A plugin that it uses gave this.")


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a cell or group record with its own digest, whole or not at all."""
    write_json(path, sealed({"schema_version": RECORD_SCHEMA_VERSION, **record}, SEAL))


def iter_records(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All cell records below `folder/records`, in path order."""
    for path in RunFolder(Path(folder)).record_paths():
        yield path, read_record(path)


def iter_groups(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """All group records below `folder/groups`, in path order."""
    for path in RunFolder(Path(folder)).group_paths():
        yield path, read_record(path, "group")


def records_of(run: RunFolder, cell_id: str) -> Iterator[dict[str, Any]]:
    """All undamaged records of one cell: its scores under several evaluations or metric versions."""
    for path in run.record_paths():
        try:
            with opened(path) as file:
                if cell_id.encode() not in file.read():  # most are of other cells: not worth parsing
                    continue
            record = read_record(path)
        except Damaged:
            continue
        if record["cell_id"] == cell_id:
            yield record
