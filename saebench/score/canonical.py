"""What passes from `encode` to `decode`: the codes, in one form, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from saebench.api import PluginError, SparseCodes
from saebench.api.errors import NotFinite


def canonical(
    codes: SparseCodes, side: Mapping[str, int] | None, label: str, kind: type[Tensor] = Tensor
) -> SparseCodes:
    """Copies of checked codes in the only form that they can have.

    Values are float32, none is zero. Latents ascend within a row. A cast takes what the second half of a float64 held,
    an order what a permutation told, a copy what else lay in the memory behind a tensor.

    Args:
        codes: As `normalise_codes` gives them.
        side: Values a token by name that the architecture declares. None: side values are left out.
        label: Named in errors.
        kind: The type of the tensors that saebench hands out.

    Raises:
        PluginError: A latent twice in a row; side values that are not declared, or of another width; tensors of a type
            of the plugin's own.
        NotFinite: A value that float32 cannot hold.
    """
    named = {"values": codes.values, "latents": codes.latents, "offsets": codes.offsets}
    for name, tensor in named.items():
        _plain(tensor, name, label, kind)
    kept = {} if side is None else {name: _side(codes, name, width, label, kind) for name, width in side.items()}
    if side is not None and (unknown := [str(name) for name in codes.side if name not in side]):
        raise PluginError(_undeclared(codes, unknown[0], label))
    values, rows = codes.values.detach().float(), codes.rows()
    keys = rows * codes.d_sae + codes.latents
    # read all at once: a card is waited for once
    seen = [(values != 0).all(), (keys.diff() > 0).all(), values.isfinite().all()]
    whole, ascending, finite = torch.stack(seen).tolist()
    if not finite:
        raise NotFinite(f"{label}: encode returned values that float32 cannot hold")
    if not whole:
        values, keys = values[values != 0], keys[values != 0]
    if not ascending:
        keys, order = keys.sort()
        values = values[order]
        if bool((keys.diff() == 0).any()):
            raise PluginError(
                f"{label}: encode gave a latent twice for one token. Each latent has one value: add them up in encode."
            )
    if whole and ascending:
        return SparseCodes(values.clone(), codes.latents.clone(), codes.offsets.clone(), int(codes.d_sae), kept)
    rows = keys // codes.d_sae
    offsets = SparseCodes.offsets_from_rows(rows, codes.n_rows)
    return SparseCodes(values.clone(), keys - rows * codes.d_sae, offsets, int(codes.d_sae), kept)


def in_16_bits(codes: SparseCodes) -> SparseCodes:
    """The codes with values and side values rounded to bfloat16, kept in float32."""
    side = {name: values.bfloat16().float() for name, values in codes.side.items()}
    return SparseCodes(codes.values.bfloat16().float(), codes.latents, codes.offsets, codes.d_sae, side)


def _plain(tensor: object, name: str, label: str, kind: type[Tensor]) -> None:
    if type(tensor) not in (Tensor, kind):
        raise PluginError(
            f"{label}: encode gave codes whose {name} are a {type(tensor).__name__}, a type of its own. Give a "
            "torch.Tensor: codes are all that decode gets."
        )


def _side(codes: SparseCodes, name: str, width: int, label: str, kind: type[Tensor]) -> Tensor:
    """`[B, ...]` float32: a copy of one declared side value."""
    found = codes.side.get(name)
    if found is None:
        raise PluginError(
            f"{label}: encode left no side value '{name}', which ArchitectureSpec.side declares. Leave it for every "
            "token, or declare it no more."
        )
    _plain(found, f"side value '{name}'", label, kind)
    if found.ndim < 1 or found.shape[0] != codes.n_rows or found.numel() != codes.n_rows * width:
        raise PluginError(
            f"{label}: side value '{name}' is {list(found.shape)} for {codes.n_rows} tokens, but ArchitectureSpec.side "
            f"declares {width} a token. Declare what is left for decode."
        )
    kept = found.detach().float().clone(memory_format=torch.contiguous_format)
    if not bool(kept.isfinite().all()):
        raise NotFinite(f"{label}: side value '{name}' is not finite in float32")
    return kept


def _undeclared(codes: SparseCodes, name: str, label: str) -> str:
    found = codes.side[name]
    shape = list(found.shape) if isinstance(found, Tensor) else []
    width = found.numel() // max(1, codes.n_rows) if isinstance(found, Tensor) else 1
    return (
        f"{label}: encode left the undeclared side value '{name}' {shape} for decode. Codes are all that decode gets. "
        f"A value that decode needs is declared, ArchitectureSpec(side={{'{name}': {width}}}), and counts in the price "
        "of a code (values-per-token)."
    )
