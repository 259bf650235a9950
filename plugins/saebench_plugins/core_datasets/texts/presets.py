"""Named hub datasets, and what hub options resolve to. Loads neither torch nor `datasets`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.api import Problem, file_manifest, located
from saebench_plugins.core_datasets.plugin import HubOptions


@dataclass(frozen=True)
class Preset:
    """Where a well-known corpus is on the hub."""

    id: str
    config: str | None = None
    text_column: str = "text"


PRESETS: Mapping[str, Preset] = {
    "tinystories": Preset("roneneldan/TinyStories"),
    "openwebtext": Preset("Skylion007/openwebtext"),
    "pile": Preset("monology/pile-uncopyrighted"),
    "fineweb": Preset("HuggingFaceFW/fineweb", config="sample-10BT"),
    "lmsys-chat-1m": Preset("lmsys/lmsys-chat-1m", text_column="conversation"),
}


def resolved(options: HubOptions) -> Preset:
    """Id, config and text column; what the options say wins over the preset."""
    preset = PRESETS[options.preset] if options.preset else Preset(options.id or "")
    return Preset(preset.id, options.config or preset.config, options.text_column or preset.text_column)


def problems(options: HubOptions) -> Sequence[Problem]:
    """Exactly one of id and preset; a preset that exists; a count that makes sense."""
    found = []
    if (options.id is None) == (options.preset is None):
        both = "both are set" if options.id is not None else "neither is set"
        found.append(
            Problem("id", f"{both}. Give either `id:` (a hub id or a folder) or `preset:` ({', '.join(PRESETS)}).")
        )
    if options.preset is not None and options.preset not in PRESETS:
        near = difflib.get_close_matches(options.preset.lower(), PRESETS, n=1)
        hint = f"Did you mean '{near[0]}'? " if near else ""
        found.append(Problem("preset", f"got '{options.preset}'. {hint}Allowed: {', '.join(PRESETS)}."))
    if options.max_documents is not None and options.max_documents < 1:
        found.append(Problem("max_documents", f"got {options.max_documents}. Use 1 or more, or leave it out."))
    return found


def local_folder(options: HubOptions) -> Path | None:
    """The folder that `id` names, if it is one."""
    folder = located(options.id) if options.id else None
    return folder if folder is not None and folder.is_dir() else None


def recipe(options: HubOptions) -> Mapping[str, Any]:
    """Source and revision, or the files of a local folder."""
    folder = local_folder(options)
    if folder is not None:
        files = sorted(
            path
            for path in folder.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        )
        return {"files": file_manifest(files, folder)}
    found = resolved(options)
    return {"id": found.id, "config": found.config, "text_column": found.text_column, "revision": options.revision}
