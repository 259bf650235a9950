"""OpenMOSS (`lm_saes`) and Llama Scope: `config.json` or `hyperparams.json` beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saebench.interop.weights import Reader, Weights, linear, refused

if TYPE_CHECKING:
    from saebench.interop.weights import Floats


def weights(folder: Path, read: Reader, config: Mapping[str, Any]) -> Weights:
    """Scores are `pre`, times the norm of the latent's decoder row where the config says so; codes are `pre`.

    `W_E [d, d_sae]`, `W_D [d_sae, d]`; before that `encoder.weight [d_sae, d]`, `decoder.weight [d, d_sae]`.

    Raises:
        SuiteError: GLU encoders, BatchTopK, normalisation by the batch, or a scale that is not stored.
    """
    if config.get("use_glu_encoder"):
        raise refused(read.path, "it has a gated linear unit as its encoder", "Plain SAEs are read.")
    inside, outside = config.get("hook_point_in"), config.get("hook_point_out")
    if inside != outside:
        raise refused(read.path, f"it reads {inside} and writes {outside}", "Transcoders are not scored.")
    old = "encoder.weight" in read
    names = ("encoder.bias", "decoder.bias") if old else ("b_E", "b_D")
    encoder = read.matrix("encoder.weight") if old else read.matrix("W_E", columns=True)
    decoder = read.matrix("decoder.weight", columns=True) if old else read.matrix("W_D")
    d_sae, d_in = encoder.shape
    b_enc = read.vector(names[0], d_sae)
    b_dec = read.vector(names[1], d_in, default=0.0)
    factor, normalise = _scale(read, config, d_in, str(inside))
    norms = np.linalg.norm(decoder, axis=1) if config.get("sparsity_include_decoder_norm") else np.ones(d_sae)
    kind = str(config.get("act_fn", "relu")).lower()
    if kind not in ("relu", "jumprelu", "topk"):
        raise refused(read.path, f"its act_fn is {kind!r}", "Known: relu, jumprelu, topk.")
    k = config.get("top_k", config.get("k")) if kind == "topk" else None
    if kind == "topk" and k is None:
        raise refused(read.path, "its config has no top_k", "Restore its config from where the SAE came from.")
    threshold = _threshold(read, config, d_sae, factor) if kind == "jumprelu" else np.zeros(d_sae)
    read.all_taken()
    made = linear(
        read,
        encoder,
        decoder,
        b_enc=b_enc,
        b_dec=b_dec,
        b_in=b_dec if config.get("apply_decoder_bias_to_pre_encoder") else None,
        threshold=(threshold / np.where(norms > 0, norms, 1)).astype(encoder.dtype),
        k=k,
    )
    if k is not None and config.get("sparsity_include_decoder_norm"):
        made = made.unit_decoder()
    return replace(made.scaled(factor), normalise=normalise)


def _scale(read: Reader, config: Mapping[str, Any], d_in: int, hookpoint: str) -> tuple[float, str]:
    """What inputs are multiplied by, and what is done to each token."""
    kind = config.get("norm_activation", "inference")
    stored = f"dataset_average_activation_norm.{hookpoint}"
    if kind == "dataset-wise":
        norms = config.get("dataset_average_activation_norm")
        norm = norms.get("in") if isinstance(norms, Mapping) else None
        norm = float(read.vector(stored, 1)[0]) if stored in read else norm
        if isinstance(norm, bool) or not isinstance(norm, int | float) or not 0 < norm < np.inf:
            raise refused(
                read.path,
                "inputs are scaled by the dataset's mean norm, which is not stored",
                "Put dataset_average_activation_norm into its config.",
            )
        return float(np.sqrt(d_in) / norm), "none"
    read.ignore(stored)
    if kind in ("inference", "none", None):
        return 1.0, "none"
    if kind == "token-wise":
        return 1.0, "constant_norm"
    raise refused(read.path, f"norm_activation is {kind!r}", "Known: inference, dataset-wise, token-wise.")


def _threshold(read: Reader, config: Mapping[str, Any], d_sae: int, factor: float) -> Floats:
    for name in ("log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"):
        if name in read:
            return np.exp(read.vector(name, d_sae))
    one = config.get("jump_relu_threshold")
    if isinstance(one, bool) or not isinstance(one, int | float) or not np.isfinite(one):
        raise refused(read.path, "it stores no threshold", "Restore its config from where the SAE came from.")
    # Llama Scope states one threshold in the units of the activations
    return np.full(d_sae, one * factor)
