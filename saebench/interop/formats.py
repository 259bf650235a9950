"""Which library wrote a folder: the files that each leaves. Importing this module imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saebench.api.errors import SuiteError, first_line
from saebench.base.text import one_line
from saebench.interop.tensor_files import SUFFIXES

# name -> True where the library stores a column a latent. nn.Linear's weight is [out, in].
DECODERS = {
    "W_dec": False, "W_D": False, "w_dec": False, "decoder.weight": True, "decoder": False, "dictionary": False,
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A library's folder: the file with its config (None: it has none) and the file with its tensors."""

    library: str
    config: str | None
    weights: str

    def __str__(self) -> str:
        return f"{self.library} ({self.weights if self.config is None else f'{self.config} + {self.weights}'})"


FORMATS = (
    Format("SAELens", "cfg.json", "sae_weights.safetensors"),
    Format("sparsify", "cfg.json", "sae.safetensors"),
    Format("dictionary_learning", "config.json", "ae.pt"),
    Format("OpenMOSS", "config.json", "sae_weights.safetensors"),
    Format("Llama Scope", "hyperparams.json", "checkpoints/final.safetensors"),
    Format("Gemma Scope", None, "params.npz"),
    Format("Gemma Scope 2", "config.json", "params.safetensors"),
)


def locate(path: Path) -> tuple[Path, Format | None]:
    """The folder of one SAE and its format; of a file that is part of none, the file and None.

    Raises:
        SuiteError: Nothing there that can be read, or several SAEs where one is needed.
    """
    if path.is_file():
        for format in FORMATS:
            for folder in (path.parent, path.parent.parent):
                mine = {folder / name for name in (format.weights, format.config) if name is not None}
                if path in mine and _is(format, folder):
                    return folder, format
        return path, None
    if not path.is_dir():
        raise SuiteError(f"{path}: no such file or folder. {looked_for()}")
    if found := [format for format in FORMATS if _is(format, path)]:
        return path, found[0]
    inside = [
        (child, format)
        for child in sorted(path.iterdir())
        if child.is_dir()
        for format in FORMATS
        if _is(format, child)
    ]
    if len(inside) > 1:
        names = ", ".join(child.name for child, _ in inside[:8]) + (", ..." if len(inside) > 8 else "")
        raise SuiteError(f"{path}: holds {len(inside)} SAEs: {names}. Give one of these folders.")
    if inside:
        return inside[0]
    raise SuiteError(f"{path}: no SAE is known by these files: {_names(path)}. {looked_for()}")


def looked_for() -> str:
    """One sentence: all that can be read."""
    return (
        "Looked for: a checkpoint folder of saebench (sae.json + sae.safetensors) or a cell's record; "
        f"{'; '.join(map(str, FORMATS))}; a folder that holds one of these; "
        f"or one {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file with {' or '.join(DECODERS)}, a row a latent."
    )


def _is(format: Format, folder: Path) -> bool:
    return (folder / format.weights).is_file() and (format.config is None or (folder / format.config).is_file())


def _names(folder: Path) -> str:
    names = sorted(child.name + "/" * child.is_dir() for child in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "(the folder is empty)"


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object of a library's own.

    Raises:
        SuiteError: It is none.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"{path}: not readable as JSON ({one_line(first_line(error), 300)}). Restore it from where the SAE came "
            "from."
        ) from error
    if not isinstance(config, dict):
        raise SuiteError(f"{path}: holds no JSON object. Restore it from where the SAE came from.")
    return config
