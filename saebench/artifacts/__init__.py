"""What is on disk: canonical JSON and digests, atomic writes, the run folder, checkpoints, records."""

# mypy: implicit_reexport=True
# ruff: noqa: F401
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
