"""What is on disk: canonical JSON and digests, atomic writes, the run folder, checkpoints, records."""

from __future__ import annotations

from saebench.artifacts.atomic import (
    atomic_folder,
    atomic_path,
    machine_errors,
    refuse,
    remove,
    surviving,
    write_bytes,
    write_json,
    write_text,
)
from saebench.artifacts.checkpoints import (
    has_checkpoint,
    prove_checkpoint,
    read_arrays,
    read_checkpoint,
    read_meta,
    save_arrays,
    save_checkpoint,
)
from saebench.artifacts.layout import RunFolder, cache_folder
from saebench.artifacts.plans import read_plan, write_plan
from saebench.artifacts.proof import check_seal, digest_of, opened, prove, read_json, read_sealed, sealed
from saebench.artifacts.records import (
    NOT_COMPARED,
    RECORD_SCHEMA_VERSION,
    STATUSES,
    check_record,
    iter_groups,
    iter_records,
    read_record,
    records_of,
    write_record,
)
from saebench.base.canonical import canonical_json, digest, file_digest, pretty_json

__all__ = [
    "NOT_COMPARED",
    "RECORD_SCHEMA_VERSION",
    "STATUSES",
    "RunFolder",
    "atomic_folder",
    "atomic_path",
    "cache_folder",
    "canonical_json",
    "check_record",
    "check_seal",
    "digest",
    "digest_of",
    "file_digest",
    "has_checkpoint",
    "iter_groups",
    "iter_records",
    "machine_errors",
    "opened",
    "pretty_json",
    "prove",
    "prove_checkpoint",
    "read_arrays",
    "read_checkpoint",
    "read_json",
    "read_meta",
    "read_plan",
    "read_record",
    "read_sealed",
    "records_of",
    "refuse",
    "remove",
    "save_arrays",
    "save_checkpoint",
    "sealed",
    "surviving",
    "write_bytes",
    "write_json",
    "write_plan",
    "write_record",
    "write_text",
]  # fmt: skip
