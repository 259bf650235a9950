"""Whether what a plugin builds is an SAE, and what its `encode` answers are codes. Importing this module imports no
torch."""

from __future__ import annotations

import difflib
from typing import Any

from saebench.api.codes import SparseCodes
from saebench.api.errors import NotFinite, PluginError
from saebench.api.sae import OPTIONAL_METHODS, REQUIRED_METHODS

NEAR = 0.85
"""Likeness of two names from which on one is a misspelt other: `finalise`, `after_steps`."""


def broken_contract(module: Any, d_in: int) -> str | None:
    """Why a module is no SAE of this width; None where it is one."""
    import torch

    if not isinstance(module, torch.nn.Module):
        return f"build must return a torch.nn.Module, got {type(module).__name__}"
    kind = type(module).__name__
    if missing := [name for name in REQUIRED_METHODS if not callable(getattr(module, name, None))]:
        return f"build returned {kind} without {', '.join(missing)}. See saebench.api.SparseAutoencoder."
    if misspelt := misspelt_methods(module):
        return " ".join(
            f"{kind}.{name} is no method that saebench calls. Did you mean '{known}'? Rename it, or begin a helper's "
            "name with '_'."
            for name, known in misspelt.items()
        )
    if (found := getattr(module, "d_in", None)) != d_in:
        return f"the module's d_in is {'missing' if found is None else found}, but the site has d_in {d_in}"
    if not isinstance(getattr(module, "d_sae", None), int):
        return f"the module's d_sae must be an int, got {type(getattr(module, 'd_sae', None)).__name__}"
    return None


def misspelt_methods(module: Any) -> dict[str, str]:
    """Public methods that look like an optional one that the module lacks, each with the name that is meant.

    A module may have helpers of its own. One is only taken for a mistake where its name is nearly that of a method that
    saebench would call, and that method is not there.
    """
    import torch

    kind = type(module)
    lacking = [name for name in OPTIONAL_METHODS if not hasattr(module, name)]
    known = {*OPTIONAL_METHODS, *dir(torch.nn.Module)}  # `decoder_directions` alone is no misspelt encoder's
    own = [name for name in dir(kind) if not name.startswith("_") and name not in known]
    close = ((name, difflib.get_close_matches(name, lacking, n=1, cutoff=NEAR)) for name in own)
    return {name: near[0] for name, near in close if near and callable(getattr(kind, name))}


def normalise_codes(answer: object, d_sae: int, *, n_rows: int | None = None, plugin: str = "the SAE") -> SparseCodes:
    """What `encode` answered, as checked sparse codes; a dense `[B, d_sae]` tensor is converted.

    Args:
        answer: What `encode` returned.
        d_sae: Number of latents.
        n_rows: B, where it is known.
        plugin: Named in errors.

    Raises:
        PluginError: Neither codes nor a dense tensor, or a wrong shape or type.
        NotFinite: Values that are not finite.
    """
    import torch

    def breach(found: str) -> PluginError:
        return PluginError(
            f"{plugin}: encode must return SparseCodes or a float tensor [{n_rows or 'B'}, {d_sae}], got {found}"
        )

    if isinstance(answer, torch.Tensor):
        if answer.ndim != 2 or answer.shape[1] != d_sae or not answer.is_floating_point():
            raise breach(f"a {answer.dtype} tensor {list(answer.shape)}")
        codes = SparseCodes.from_dense(answer)
    elif isinstance(answer, SparseCodes):
        codes = answer
        if type(answer) is not SparseCodes:  # it may answer what it likes: its fields are read, none of its methods
            codes = SparseCodes(answer.values, answer.latents, answer.offsets, answer.d_sae, answer.side)
    else:
        raise breach(type(answer).__name__)
    n_values = codes.values.numel()
    if (
        codes.d_sae != d_sae
        or codes.values.ndim != 1
        or codes.latents.shape != codes.values.shape
        or codes.offsets.ndim != 1
    ):
        raise breach(
            f"codes with d_sae {codes.d_sae}, values {list(codes.values.shape)}, latents {list(codes.latents.shape)}, "
            f"offsets {list(codes.offsets.shape)}"
        )
    if n_rows is not None and codes.n_rows != n_rows:
        raise breach(f"{codes.n_rows} rows")
    if not codes.values.is_floating_point() or codes.latents.dtype != torch.int64 or codes.offsets.dtype != torch.int64:
        raise breach(
            f"codes of types {codes.values.dtype}, {codes.latents.dtype}, {codes.offsets.dtype} (float, int64, int64 "
            "needed)"
        )
    places = {str(part.device) for part in (codes.values, codes.latents, codes.offsets)}
    if len(places) > 1:
        raise breach(f"codes that lie on {' and '.join(sorted(places))}: move what the module makes to x's device")
    seen = [codes.offsets[0], codes.offsets[-1], (codes.offsets.diff() < 0).any()]
    if n_values:
        seen += [codes.latents.min(), codes.latents.max(), codes.values.isfinite().all()]
    # read all at once: a card is waited for once
    first, last, falls, *entries = torch.stack([value.long() for value in seen]).tolist()
    if first != 0 or last != n_values or falls:
        raise breach(f"offsets that do not run from 0 to {n_values} without falling")
    if entries:
        low, high, finite = entries
        if low < 0 or high >= d_sae:
            raise breach(f"latents from {low} to {high}")
        if not finite:
            raise NotFinite(str(breach("values that are not finite")))
    return codes
