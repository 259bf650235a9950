"""One file of tensors. It does not say how it encodes, so what it leaves open must be stated: nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saebench.interop.weights import Reader, Weights, linear, refused

KEYS = ("k", "activation", "apply_b_dec_to_input")
_MATRICES = (("W_enc", "W_dec"), ("w_enc", "w_dec"), ("W_E", "W_D"), ("encoder.weight", "decoder.weight"))
_LINEAR = "encoder.weight"  # of an nn.Linear: [d_sae, d_in], and its decoder [d_in, d_sae]
_B_ENC, _B_DEC = ("b_enc", "b_E", "encoder.bias"), ("b_dec", "b_D", "decoder.bias", "bias")


def weights(path: Path, read: Reader, said: Mapping[str, Any]) -> Weights:
    """Encoder and decoder by their usual names, each way round that fits.

    Args:
        path: The file.
        read: Its tensors.
        said: Its settings, and those that the user states: `k` or `activation: relu` where there is no `threshold`;
            `apply_b_dec_to_input` where its decoder bias is not zero.

    Raises:
        SuiteError: Something is open, or a tensor is not known.
    """
    pair = next((pair for pair in _MATRICES if pair[0] in read and pair[1] in read), None)
    if pair is None:
        wanted = " or ".join(" and ".join(pair) for pair in _MATRICES)
        raise refused(path, "an encoder or a decoder is missing", f"Store {wanted}.")
    names = pair
    first, second = read.matrix(names[0]), read.matrix(names[1])
    if names[0] == _LINEAR:
        second = second.T.copy()
    elif first.shape != second.shape:
        first = first.T.copy()
    elif first.shape[0] == first.shape[1]:
        raise refused(path, f"{names[0]} is square, so its orientation is open", "Give it in a library's folder.")
    d_sae, d_in = first.shape
    b_enc = next((read.vector(name, d_sae) for name in _B_ENC if name in read), None)
    b_dec = next((read.vector(name, d_in) for name in _B_DEC if name in read), None)
    threshold = read.vector("threshold", d_sae) if "threshold" in read else None
    k = int(read.vector("k", 1)[0]) if "k" in read else said.get("k")
    activation = said.get("activation", "threshold" if threshold is not None else "topk" if k is not None else None)
    if activation not in ("relu", "topk", "threshold", "jumprelu") or (activation == "topk" and k is None):
        raise refused(
            path,
            f"it does not say how latents are chosen (activation {activation!r}, k {k!r})",
            "State it: assume={'k': 32} or assume={'activation': 'relu'}; or store a tensor threshold.",
        )
    subtracts = said.get("apply_b_dec_to_input")
    if b_dec is not None and b_dec.any() and not isinstance(subtracts, bool):
        raise refused(
            path,
            "it does not say whether its decoder bias is subtracted from the input",
            "State it: assume={'apply_b_dec_to_input': True} (or False).",
        )
    read.all_taken()
    return linear(
        read,
        first,
        second,
        b_enc=b_enc,
        b_dec=b_dec,
        b_in=b_dec if subtracts is True else None,
        threshold=threshold if activation in ("threshold", "jumprelu") else None,
        k=k if activation == "topk" else None,
    )
