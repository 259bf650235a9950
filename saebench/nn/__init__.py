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
`kernels`           what these are made of: exact top-k, thresholds, products in which only active latents cost anything

Names are loaded when they are first asked for, so that `saebench.nn.cost` can be imported without torch. The imports
below are the one list of them: type checkers follow these, `__getattr__` finds a name's module in them. No module here
is called as a name that it exports: the module would hide the name.
"""

# mypy: implicit_reexport=True
# ruff: noqa: F401
from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path
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
    from saebench.nn.kernels.above import linear_above
    from saebench.nn.kernels.autograd import decode, linear_threshold, linear_topk, sparse_linear
    from saebench.nn.kernels.by_hand import fill_gradients, finish_bias_gradient, reconstruct
    from saebench.nn.kernels.dense_topk import batch_topk, encode_topk, topk
    from saebench.nn.kernels.products import bag_sum, by_latent, entry_dots, transposed_product
    from saebench.nn.kernels.select import Workspace, linear_select
    from saebench.nn.kernels.select_batch import linear_batch_topk
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

_MODULE_OF = {
    export.name: found.module
    for found in ast.walk(ast.parse(Path(__file__).read_text(encoding="utf-8")))
    if isinstance(found, ast.ImportFrom) and found.module is not None and found.module.startswith(f"{__name__}.")
    for export in found.names
}
__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
