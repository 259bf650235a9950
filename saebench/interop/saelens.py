"""SAELens: `cfg.json` (old and new) and `sae_weights.safetensors`, as `SAE.load_from_disk` reads them (version 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from saebench.interop.formats import read_config
from saebench.interop.weights import Reader, Weights, linear, refused

SCALER = "activation_scaler.json"
"""Written beside training checkpoints whose input scale is not folded in yet."""
_NORMS = {"none": "none", "layer_norm": "layer_norm", "constant_norm_rescale": "constant_norm"}


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """One vocabulary for configs before and after version 6: settings of the model are at the top in the old ones."""
    metadata = config.get("metadata")
    found = {**config, **(metadata if isinstance(metadata, Mapping) else {})}
    renamed = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}
    found = {renamed.get(name, name): value for name, value in found.items()}
    more = found.get("activation_fn_kwargs")
    if found.get("activation_fn") == "topk" and isinstance(more, Mapping) and "k" in more:
        found |= {"architecture": "topk", "k": more["k"]}
    normalise = found.get("normalize_activations")
    if normalise is None or isinstance(normalise, bool):
        found["normalize_activations"] = "expected_average_only_in" if normalise else "none"
    return found


def weights(folder: Path, read: Reader, config: Mapping[str, Any]) -> Weights:
    """Encoder `[d_in, d_sae]`, decoder `[d_sae, d_in]`.

    Raises:
        SuiteError: An architecture or a normalisation that cannot be read rightly.
    """
    said = settings(config)
    architecture = said.get("architecture", "standard")
    if (activation := said.get("activation_fn", "relu")) not in ("relu", "topk"):
        raise refused(read.path, f"its activation function is {activation!r}", "Known: relu, topk.")
    encoder, decoder = read.matrix("W_enc", columns=True), read.matrix("W_dec")
    d_sae, d_in = encoder.shape
    b_dec = read.vector("b_dec", d_in)
    parts: dict[str, Any] = {"b_dec": b_dec, "b_in": b_dec if said.get("apply_b_dec_to_input", True) else None}
    if architecture == "gated":
        size, gate = np.exp(read.vector("r_mag", d_sae)), read.vector("b_gate", d_sae)
        magnitude = read.vector("b_mag", d_sae)
        # the gate is open where u + b_gate > 0; the magnitude exp(r) u + b_mag then lies above this
        parts |= {"b_enc": magnitude, "threshold": magnitude - size * gate}
        encoder = encoder * size[:, None]
    elif architecture in ("standard", "jumprelu", "topk"):
        parts["b_enc"] = read.vector("b_enc", d_sae)
        if architecture == "jumprelu":
            logs = "log_threshold" in read
            threshold = read.vector("log_threshold" if logs else "threshold", d_sae)
            parts["threshold"] = np.exp(threshold) if logs else threshold
        if architecture == "topk":
            parts["k"] = said.get("k")
            if parts["k"] is None:
                raise refused(read.path, "its config has no k", "Restore cfg.json from where the SAE came from.")
    else:
        known = "standard, jumprelu, topk, gated"
        raise refused(
            read.path,
            f"its architecture is {architecture!r}",
            f"Known: {known}. SAELens writes a BatchTopK for inference as jumprelu.",
        )
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        if name in read:
            decoder = decoder * read.vector(name, d_sae)[:, None]
    read.all_taken()
    made = linear(read, encoder, decoder, **parts)
    if architecture == "topk" and said.get("rescale_acts_by_decoder_norm"):
        made = made.unit_decoder()
    return _normalised(made, str(said["normalize_activations"]), folder, read.path)


def _normalised(made: Weights, normalise: str, folder: Path, path: Path) -> Weights:
    if normalise == "expected_average_only_in":
        if not (folder / SCALER).is_file():
            raise refused(
                path,
                "its inputs were scaled by a factor that is not stored (normalize_activations: "
                "expected_average_only_in)",
                f"Fold it in with SAE.fold_activation_norm_scaling_factor, or put {SCALER} with scaling_factor beside "
                "it.",
            )
        factor = read_config(folder / SCALER).get("scaling_factor")
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < np.inf:
            raise refused(folder / SCALER, f"scaling_factor is {factor!r}", "A number over 0 is allowed.")
        return made.scaled(float(factor))
    if normalise not in _NORMS:
        todo = (
            "Fold it in with SAE.fold_activation_whitening."
            if "whiten" in normalise
            else f"Known: {', '.join(_NORMS)}."
        )
        raise refused(path, f"normalize_activations is {normalise!r}", todo)
    return replace(made, normalise=_NORMS[normalise])
