"""dictionary_learning: `config.json` and `ae.pt`, as its classes encode and decode (version 0.1).

Trained on scaled activations, it stores biases that are scaled back; nothing is left to fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from saebench.interop.weights import Reader, Weights, linear, refused

KNOWN = (
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)  # fmt: skip


def weights(folder: Path, read: Reader, config: Mapping[str, Any]) -> Weights:
    """As the class that the config names does it.

    Raises:
        SuiteError: Another class.
    """
    trainer = config.get("trainer")
    kind = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
    if kind not in KNOWN:
        raise refused(read.path, f"its dict_class is {kind!r}", f"Known: {', '.join(KNOWN)}.")
    parts: dict[str, Any] = {}
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        encoder, decoder = read.matrix("W_enc", columns=True), read.matrix("W_dec")
        bias = "b_enc"
    else:
        encoder, decoder = read.matrix("encoder.weight"), read.matrix("decoder.weight", columns=True)
        bias = "encoder.bias"
    d_sae, d_in = encoder.shape
    if kind == "GatedAutoEncoder":
        size, gate = np.exp(read.vector("r_mag", d_sae)), read.vector("gate_bias", d_sae)
        magnitude = read.vector("mag_bias", d_sae)
        parts = {"b_enc": magnitude, "threshold": magnitude - size * gate}
        encoder = encoder * size[:, None]
    else:
        parts["b_enc"] = read.vector(bias, d_sae)
    names = {"AutoEncoder": "bias", "GatedAutoEncoder": "decoder_bias", "AutoEncoderNew": "decoder.bias"}
    b_dec = parts["b_dec"] = read.vector(names.get(kind, "b_dec"), d_in)
    if kind not in ("AutoEncoderNew", "JumpReluAutoEncoder"):
        parts["b_in"] = b_dec
    if kind in ("JumpReluAutoEncoder", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        parts["threshold"] = read.vector("threshold", d_sae)
    if kind == "AutoEncoderTopK":
        parts["k"] = int(read.vector("k", 1)[0])
    read.ignore("k", "threshold", "group_sizes")
    read.all_taken()
    made = linear(read, encoder, decoder, **parts)
    return made.unit_decoder() if kind == "AutoEncoder" else made  # as its from_pretrained does
