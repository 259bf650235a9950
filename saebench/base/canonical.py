"""Canonical JSON and digests: the same content has the same bytes on every machine."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from saebench.base.folding import FORMAT

_UNSEEN = re.compile(f"[{FORMAT}]")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces.

    Raises ValueError on NaN or infinity, TypeError on what JSON does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def pretty_json(value: Any) -> str:
    r"""JSON for files: sorted keys, two spaces, a newline at the end; otherwise as `canonical_json`.

    Characters that move a cursor, hide or turn text are written as `\u202e`: the value is the same.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return _UNSEEN.sub(lambda found: json.dumps(found[0])[1:-1], text)


def digest(value: Any, length: int = 64) -> str:
    """First `length` hex digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:length]


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
