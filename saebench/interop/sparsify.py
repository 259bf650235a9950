"""sparsify: `cfg.json` and `sae.safetensors`, as `SparseCoder` encodes and decodes (eai-sparsify 1.3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saebench.interop.weights import Reader, Weights, linear, refused


def weights(folder: Path, read: Reader, config: Mapping[str, Any]) -> Weights:
    """Encoder and decoder `[d_sae, d_in]`; the decoder's bias is subtracted first; TopK after a ReLU, or GroupMax.

    Raises:
        SuiteError: A transcoder, a skip connection, signed codes, or an unknown activation.
    """
    for name, what in (("transcode", "a transcoder"), ("skip_connection", "an SAE with a skip connection")):
        if config.get(name):
            raise refused(read.path, f"it is {what}", "Plain SAEs are scored.")
    if config.get("signed"):
        raise refused(read.path, "its codes are signed", "Plain TopK SAEs are read.")
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise refused(read.path, f"its activation is {activation!r}", "Known: topk, groupmax.")
    encoder, decoder = read.matrix("encoder.weight"), read.matrix("W_dec")
    d_sae, d_in = encoder.shape
    b_dec, b_enc = read.vector("b_dec", d_in), read.vector("encoder.bias", d_sae)
    read.all_taken()
    k = config.get("k")
    if k is None:
        raise refused(read.path, "its config has no k", "Restore cfg.json from where the SAE came from.")
    made = linear(read, encoder, decoder, b_dec=b_dec, b_in=b_dec, b_enc=b_enc, k=k, groups=activation == "groupmax")
    if made.groups and made.d_sae % k:
        raise refused(read.path, f"{made.d_sae} latents do not divide into {k} groups", "Restore its config.")
    return made
