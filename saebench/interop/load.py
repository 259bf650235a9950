"""One reader for every finished SAE: where it is, which library wrote it, its weights, and what to know of it.

Importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.api.errors import SuiteError
from saebench.base.canonical import digest
from saebench.base.text import one_line
from saebench.interop import dictionary_learning, gemma_scope, openmoss, plain, saelens, sparsify
from saebench.interop.formats import Format, locate, read_config
from saebench.interop.tensor_files import read_file
from saebench.interop.weights import Reader, Weights

if TYPE_CHECKING:
    from torch import nn

_READERS: Mapping[str, Callable[[Path, Reader, Mapping[str, Any]], Weights]] = {
    "SAELens": saelens.weights,
    "sparsify": sparsify.weights,
    "dictionary_learning": dictionary_learning.weights,
    "OpenMOSS": openmoss.weights,
    "Llama Scope": openmoss.weights,
    "Gemma Scope": gemma_scope.weights,
    "Gemma Scope 2": gemma_scope.weights,
}
_NOT_WEIGHTS = {"dictionary_learning": ("k", "group_sizes")}


@dataclass(frozen=True, eq=False)
class Finished:
    """A finished SAE of another library.

    Attributes:
        path: What was read.
        library: Who wrote it; `file` for one file.
        weights: In the units of the activations.
        hookpoint, model: Where it was trained, in its library's words; None where it does not say.
        prepend_bos: Whether it was trained on texts that begin with a BOS token; None where it does not say.
        notes: What a reader of its scores should know, one sentence each.
    """

    path: Path
    library: str
    weights: Weights
    hookpoint: str | None = None
    model: str | None = None
    prepend_bos: bool | None = None
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of what decides codes and reconstructions: weights and config, not names or files."""
        arrays = {
            name: hashlib.sha256(np.ascontiguousarray(array.astype(np.float32)).tobytes()).hexdigest()
            for name, array in self.weights.arrays().items()
        }
        return digest({**self.weights.config(), **arrays})


def read_finished(path: Path, *, assume: Mapping[str, Any] | None = None) -> Finished:
    """Another library's SAE, with all that encoding and decoding needs.

    Args:
        path: Its folder, a parent of one such folder, or one file.
        assume: Of one file: what it does not say (`k`, `activation`, `apply_b_dec_to_input`).

    Raises:
        SuiteError: There is none, or it cannot be read rightly; the message says why.
    """
    path, format = locate(Path(path))
    if format is None:
        tensors, settings = read_file(path, whole=True)
        return Finished(path, "file", plain.weights(path, Reader(tensors, path), {**settings, **(assume or {})}))
    if assume:
        raise SuiteError(f"{path}: its {format.config or 'format'} says how it encodes. Leave assume out.")
    return _of_folder(path, format)


def _of_folder(folder: Path, format: Format) -> Finished:
    path = folder / format.weights
    config = {} if format.config is None else read_config(folder / format.config)
    tensors, _ = read_file(path, whole=format.library in _NOT_WEIGHTS)
    made = _READERS[format.library](folder, Reader(tensors, path), config)
    said = saelens.settings(config)
    nested = config.get("trainer")
    said |= nested if isinstance(nested, Mapping) else {}
    bos = said.get("prepend_bos", True if format.library == "SAELens" and "metadata" not in config else None)
    notes = []
    if said.get("dtype") in ("bfloat16", "float16", "torch.bfloat16", "torch.float16"):
        notes.append(f"its library computes in {said['dtype']}, saebench in float32")
    return Finished(
        folder,
        format.library,
        made,
        _word(said, "hook_name", "hf_hook_point_in", "hook_point_in", "submodule_name"),
        _word(said, "model_name", "lm_name"),
        bos if isinstance(bos, bool) else None,
        tuple(notes),
    )


def _word(said: Mapping[str, Any], *names: str) -> str | None:
    return next((one_line(said[name], 80) for name in names if isinstance(said.get(name), str)), None)


def fill(module: nn.Module, weights: Weights) -> None:
    """Copies weights into a module of architecture `external`."""
    import torch

    module.load_state_dict({name: torch.from_numpy(array) for name, array in weights.arrays().items()})
