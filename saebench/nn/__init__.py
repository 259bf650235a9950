"""Building blocks for architecture authors. There is no registry here: a plugin imports what it needs.

`sparse`       decode and linear encode where only active latents cost anything
`selection`    exact top-k, ties to the lowest index
`activations`  JumpReLU and the step function with straight-through threshold gradients
`init`         tied initialisation, unit rows, geometric median, quantile thresholds
`dead`         dead-latent tracker and the AuxK loss
`expander`     frozen left-regular masks and products with `[d_sae, degree]` values
`term`         tilted empirical risk: token weights
`modules`      `LinearSAE` (what most SAEs share), `Rescaled`, `copy_parent`
`planning`     cost formulas and config checks for `plugin.py`; loads no torch

Names are loaded when they are first asked for, so that `saebench.nn.planning` can be imported without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench.nn.activations import jumprelu, step
    from saebench.nn.dead import DeadLatents, aux_k_loss, default_k_aux, draw_by_loss
    from saebench.nn.expander import (
        expander_decode,
        expander_dense,
        expander_pre_acts,
        expander_values,
        mask_digest,
        sample_mask,
    )
    from saebench.nn.init import geometric_median, tied_init, total_variance, unit_rows_, upper_quantile
    from saebench.nn.modules import (
        LinearSAE,
        Rescaled,
        copy_parent,
        decoder_directions,
        encoder_directions,
        stored_bytes,
    )
    from saebench.nn.selection import batch_topk, encode_topk, topk
    from saebench.nn.sparse import bag_sum, decode, linear_threshold, linear_topk, sparse_linear
    from saebench.nn.term import effective_sample_size, term_weights

_HOME = {
    "activations": ("jumprelu", "step"),
    "dead": ("DeadLatents", "aux_k_loss", "default_k_aux", "draw_by_loss"),
    "expander": (
        "expander_decode",
        "expander_dense",
        "expander_pre_acts",
        "expander_values",
        "mask_digest",
        "sample_mask",
    ),
    "init": ("geometric_median", "tied_init", "total_variance", "unit_rows_", "upper_quantile"),
    "modules": ("LinearSAE", "Rescaled", "copy_parent", "decoder_directions", "encoder_directions", "stored_bytes"),
    "selection": ("batch_topk", "encode_topk", "topk"),
    "sparse": ("bag_sum", "decode", "linear_threshold", "linear_topk", "sparse_linear"),
    "term": ("effective_sample_size", "term_weights"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "DeadLatents", "LinearSAE", "Rescaled", "aux_k_loss", "bag_sum", "batch_topk", "copy_parent", "decode", "decoder_directions",
    "default_k_aux", "draw_by_loss", "effective_sample_size", "encode_topk", "encoder_directions", "expander_decode", "expander_dense",
    "expander_pre_acts", "expander_values", "geometric_median", "jumprelu", "linear_threshold", "linear_topk", "mask_digest",
    "sample_mask", "sparse_linear", "step", "stored_bytes", "term_weights", "tied_init", "topk", "total_variance", "unit_rows_",
    "upper_quantile",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_HOME]
