"""Building blocks for architecture authors. There is no registry here: a plugin imports what it needs.

`linear`            `LinearSAE` (what most SAEs share), `Rescaled`
`topk_sae`          what TopK-like SAEs share: AuxK, gradients by hand
`straight_through`  JumpReLU and the step function with straight-through threshold gradients
`expander`          frozen left-regular masks and products with `[d_sae, degree]` values
`tilted`            tilted empirical risk: token weights
`dead`              dead-latent tracker and the AuxK loss
`init`              tied initialisation, unit rows, geometric median, quantile thresholds
`cost`              cost formulas and config checks for `plugin.py`; loads no torch
`grads`             a step's loss and gradient, by the module's own hand or by autograd
`kernels`           what these stand on: exact top-k, thresholds, products in which only active latents cost anything

Names are loaded when they are first asked for, so that `saebench.nn.cost` can be imported without torch. No module here is called as a
name that it exports: the module would hide the name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saebench.nn.dead import DeadLatents, add_aux_k_gradients, aux_k_flops, aux_k_loss, default_k_aux, draw_by_loss
    from saebench.nn.expander import (
        expander_decode,
        expander_dense,
        expander_gradients,
        expander_pre_acts,
        expander_topk,
        expander_values,
        mask_digest,
        sample_mask,
    )
    from saebench.nn.grads import autograd_loss_and_grad, detached, loss_and_grad, reduced_loss
    from saebench.nn.init import geometric_median, tied_init, total_variance, unit_rows_, upper_quantile
    from saebench.nn.kernels.above import linear_above, linear_batch_topk
    from saebench.nn.kernels.autograd import decode, linear_threshold, linear_topk, sparse_linear
    from saebench.nn.kernels.by_hand import fill_gradients, finish_bias_gradient, reconstruct
    from saebench.nn.kernels.products import bag_sum, by_latent, entry_dots, transposed_product
    from saebench.nn.kernels.select import batch_topk, encode_topk, linear_select, topk
    from saebench.nn.linear import (
        LinearSAE,
        Rescaled,
        decoder_directions,
        encoder_directions,
        stored_bytes,
    )
    from saebench.nn.straight_through import jumprelu, step
    from saebench.nn.tilted import effective_sample_size, term_weights
    from saebench.nn.topk_sae import AuxKSAE, Chosen

_HOME = {
    "straight_through": ("jumprelu", "step"),
    "topk_sae": ("AuxKSAE", "Chosen"),
    "dead": ("DeadLatents", "add_aux_k_gradients", "aux_k_flops", "aux_k_loss", "default_k_aux", "draw_by_loss"),
    "expander": (
        "expander_decode",
        "expander_dense",
        "expander_gradients",
        "expander_pre_acts",
        "expander_topk",
        "expander_values",
        "mask_digest",
        "sample_mask",
    ),
    "grads": ("autograd_loss_and_grad", "detached", "loss_and_grad", "reduced_loss"),
    "init": ("geometric_median", "tied_init", "total_variance", "unit_rows_", "upper_quantile"),
    "linear": ("LinearSAE", "Rescaled", "decoder_directions", "encoder_directions", "stored_bytes"),
    "kernels.products": ("bag_sum", "by_latent", "entry_dots", "transposed_product"),
    "kernels.by_hand": ("fill_gradients", "finish_bias_gradient", "reconstruct"),
    "kernels.select": ("batch_topk", "encode_topk", "linear_select", "topk"),
    "kernels.autograd": ("decode", "linear_threshold", "linear_topk", "sparse_linear"),
    "kernels.above": ("linear_above", "linear_batch_topk"),
    "tilted": ("effective_sample_size", "term_weights"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AuxKSAE", "Chosen", "DeadLatents", "LinearSAE", "Rescaled", "add_aux_k_gradients", "autograd_loss_and_grad",
    "aux_k_flops", "aux_k_loss", "bag_sum", "batch_topk", "by_latent", "decode", "decoder_directions",
    "default_k_aux", "detached", "draw_by_loss", "effective_sample_size", "encode_topk", "encoder_directions",
    "entry_dots", "expander_decode", "expander_dense", "expander_gradients", "expander_pre_acts", "expander_topk",
    "expander_values", "fill_gradients", "finish_bias_gradient", "geometric_median", "jumprelu", "linear_above",
    "linear_batch_topk", "linear_select", "linear_threshold", "linear_topk", "loss_and_grad", "mask_digest",
    "reconstruct", "reduced_loss", "sample_mask", "sparse_linear", "step", "stored_bytes", "term_weights", "tied_init",
    "topk", "total_variance", "transposed_product", "unit_rows_", "upper_quantile",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_HOME]
