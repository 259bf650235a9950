"""The manifest of a store: what decides its content, what its builder knew, the digests of its files and of itself."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from saebench.api.errors import Damaged
from saebench.artifacts import digest, prove, read_sealed, sealed, write_json

MANIFEST = "manifest.json"
SEAL = "manifest_sha256"


def write_manifest(folder: Path, key: Mapping[str, Any], files: Mapping[str, str], content: Mapping[str, Any]) -> None:
    """Writes it: the last file of a store. `files` are SHA-256 by name."""
    write_json(folder / MANIFEST, sealed({"key": dict(key), "files": dict(files), **content}, SEAL))


def read_manifest(folder: Path, key: Mapping[str, Any], version: Mapping[str, int]) -> dict[str, Any] | None:
    """The manifest of the store in `folder`; None where there is no store.

    Raises:
        Damaged: It is missing, was changed, is of another `version`, or is that of a store with another key.
        MachineError: The machine refuses to read it.
    """
    if not os.path.lexists(folder):
        return None
    path = folder / MANIFEST
    manifest = read_sealed(path, SEAL)
    for name, number in version.items():
        if manifest.get(name) != number:
            raise Damaged(f"{path}: {name} is {manifest.get(name)!r}; this saebench reads {number}")
    if digest(manifest["key"]) != digest(dict(key)):
        raise Damaged(f"{path}: damaged (it is the manifest of other data)")
    with suppress(OSError):
        os.utime(path)  # the least recently used store is removed first
    return manifest


def prove_files(folder: Path, manifest: Mapping[str, Any], names: Collection[str]) -> None:
    """Nothing, where these files are those that the manifest names.

    Raises:
        Damaged, MachineError: As `prove`.
    """
    for name in names:
        prove(folder / name, manifest["files"].get(name))
