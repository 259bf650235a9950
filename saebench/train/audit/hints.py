"""Whether the codes and the reconstruction that a step hands on are those that the module itself makes of the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from saebench.api import LossTerms, PluginError, SparseCodes

OTHER_CODES = 0.1
"""Share of the entries in which the codes of a step may differ: near ties fall either way."""
OTHER_X_HAT = 1e-3
"""Squared distance of two reconstructions, in parts of the batch's variance. Float32 noise is below 1e-10."""


def energy(x: Tensor) -> float:
    """Sum of squares, over tokens in float64."""
    return float(x.square().sum(1).double().sum())


def check_hints(terms: LossTerms, codes: SparseCodes, x_hat: Tensor, target: Tensor, label: str) -> None:
    """Holds `LossTerms.codes` and `x_hat` to what the module makes when it is asked.

    Args:
        terms: Of a training step, detached.
        codes, x_hat: The module's own, of the same batch and weights.
        target: What is reconstructed.
        label: Of the cell.

    Raises:
        PluginError: They differ by more than noise; with both numbers.
    """
    advice = (
        "Leave out of LossTerms what the module's own encode (or training_codes, where codes are others in training) "
        "and decode do not give."
    )
    if terms.codes is not None:
        told, own = _firing(terms.codes), _firing(codes)
        both = int(torch.isin(told, own).sum())
        if both < (1 - OTHER_CODES) * max(told.numel(), own.numel()):
            n = max(1, codes.n_rows)
            raise PluginError(
                f"{label}: LossTerms.codes has {told.numel() / n:.4g} active latents a token, its own codes "
                f"of the same batch have {own.numel() / n:.4g}, and {both / n:.4g} are in both. {advice}"
            )
    if terms.x_hat is not None:
        variance = energy(target - target.mean(0))
        gap = energy(terms.x_hat.to(x_hat.dtype) - x_hat)
        if gap > OTHER_X_HAT * variance + 1e-6 * energy(target):
            told_fvu, own_fvu = (energy(target - made) / max(variance, 1e-30) for made in (terms.x_hat, x_hat))
            raise PluginError(
                f"{label}: LossTerms.x_hat has FVU {told_fvu:.4g} on its batch, the module's own reconstruction has "
                f"{own_fvu:.4g}. {advice}"
            )


def _firing(codes: SparseCodes) -> Tensor:
    """One number for each entry that is not zero: its place in `[B, d_sae]`."""
    rows = torch.repeat_interleave(
        torch.arange(codes.n_rows, device=codes.latents.device), codes.offsets.diff(), output_size=codes.values.numel()
    )
    return (rows * codes.d_sae + codes.latents)[codes.values != 0]
