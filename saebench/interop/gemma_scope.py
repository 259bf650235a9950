"""Gemma Scope 1 (`params.npz`) and 2 (`config.json`, `params.safetensors`): JumpReLU, no bias is subtracted first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saebench.interop.weights import Reader, Weights, linear, refused


def weights(folder: Path, read: Reader, config: Mapping[str, Any]) -> Weights:
    """Encoder `[d_in, d_sae]`, decoder `[d_sae, d_in]`; the second writes names in lower case.

    Raises:
        SuiteError: A transcoder, an affine connection, or another architecture.
    """
    kind, architecture = config.get("type", "sae"), config.get("architecture", "jump_relu")
    if kind != "sae" or config.get("affine_connection"):
        raise refused(read.path, f"it is a {kind}, with an affine connection or another target", "SAEs are scored.")
    if architecture != "jump_relu":
        raise refused(read.path, f"its architecture is {architecture!r}", "Known: jump_relu.")
    lower = "w_enc" in read
    encoder = read.matrix("w_enc" if lower else "W_enc", columns=True)
    decoder = read.matrix("w_dec" if lower else "W_dec")
    d_sae, d_in = encoder.shape
    b_enc, b_dec = read.vector("b_enc", d_sae), read.vector("b_dec", d_in)
    threshold = read.vector("threshold", d_sae)
    read.all_taken()
    return linear(read, encoder, decoder, b_enc=b_enc, b_dec=b_dec, threshold=threshold)
