"""What TopK-like SAEs share: reconstruction loss and AuxK, by autograd and by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saebench.api.batches import ActivationBatch
from saebench.api.codes import SparseCodes
from saebench.api.sae import AfterStep, LossTerms, StepInfo
from saebench.nn.dead import DeadLatents, add_aux_k_gradients, aux_k_flops, aux_k_loss, default_k_aux, padded
from saebench.nn.kernels.autograd import sparse_linear
from saebench.nn.kernels.by_hand import fill_gradients, finish_bias_gradient, reconstruct
from saebench.nn.kernels.select import Workspace
from saebench.nn.linear import LinearSAE

SCALE_TOKENS = 4096
"""Tokens of the init sample that the encoder's scale is fitted on."""


class _Thread(threading.local):
    """What the SAEs of one thread share."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_THREAD = _Thread()


class Chosen(NamedTuple):
    """The latents of a training batch, without gradient."""

    codes: SparseCodes
    """Rectified."""
    columns: Tensor | None
    """`[B, m]` pre-activations of the latents asked for."""
    fallback_rows: int
    """Tokens decided from the whole product."""


class AuxKSAE(LinearSAE):
    """A `LinearSAE` whose codes are the largest pre-activations, rectified, with AuxK for its dead latents.

    Subclasses say which: `choose`.

    Args:
        k_aux: Dead latents used by AuxK; None: `default_k_aux(d_in)`.
        aux_coefficient: Its weight; 0 turns it off.
        dead_window: See `DeadLatents`.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        generator: torch.Generator,
        *,
        k_aux: int | None,
        aux_coefficient: float,
        dead_window: float,
    ) -> None:
        super().__init__(d_in, d_sae, generator)
        self.k_aux, self.aux_coefficient = k_aux or default_k_aux(d_in), aux_coefficient
        self.dead = DeadLatents(d_sae, dead_window)

    @property
    def workspace(self) -> Workspace:
        """Memory for the columns that `choose` gives. A step uses them up, so all SAEs of a thread share one."""
        return _THREAD.workspace

    @torch.no_grad()
    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """Bias, loss scale, and an encoder of the right size."""
        super().init_from_data(x, generator)
        self.fit_encoder_scale(x[:SCALE_TOKENS], self.training_codes(x[:SCALE_TOKENS]))

    def choose(self, x: Tensor, columns: Tensor | None) -> Chosen:
        """The training form's codes of centred `x [B, d_in]`, and pre-activations of the latents `columns`.

        No gradient.
        """
        raise NotImplementedError

    def training_codes(self, x: Tensor) -> SparseCodes:
        """The training form's codes of `x [B, d_in]`; gradient for what was chosen."""
        centred = x - self.b_dec
        codes = self.choose(centred.detach(), None).codes
        pre = sparse_linear(centred, self.W_enc, self.b_enc, codes.values, codes.latents, codes.offsets)
        # the kept value is already rectified; its sign says whether the rectifier lets the gradient through
        return SparseCodes(pre * (codes.values > 0), codes.latents, codes.offsets, self.d_sae)

    def _dead(self, step: StepInfo) -> Tensor | None:
        return self.dead.dead(step.tokens_allotted) if self.aux_coefficient > 0 else None

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token, and AuxK."""
        codes = self.training_codes(batch.x)
        x_hat = self.decode(codes)
        penalties, flops, dead = {}, 0, self._dead(step)
        if dead is not None:
            aux = aux_k_loss(
                batch.x - self.b_dec, batch.target - x_hat, dead, self.W_enc, self.b_enc, self.W_dec, self.k_aux
            )
            penalties["aux"] = self.aux_coefficient * aux
            flops = aux_k_flops(batch.n_tokens, self.d_in, dead.numel(), self.k_aux)
        return LossTerms(self.reconstruction(x_hat, batch.target), penalties, codes, x_hat, flops=flops)

    @torch.no_grad()
    def loss_and_grad(
        self, batch: ActivationBatch, step: StepInfo, token_weights: Callable[[Tensor], Tensor] | None = None
    ) -> LossTerms:
        """`training_loss` and its gradient by hand."""
        x, dead = batch.x - self.b_dec, self._dead(step)
        latents = padded(dead) if dead is not None else None
        codes, columns, fallback = self.choose(x, latents)
        made = reconstruct(self, codes, batch.target, token_weights)
        fill_gradients(self, x, codes, made.df * (codes.values > 0), made.g)
        penalties, flops = {}, 0
        if dead is not None and latents is not None and columns is not None:
            n_dead, residual = dead.numel(), batch.target - made.x_hat
            penalties["aux"] = add_aux_k_gradients(
                self, x, columns, residual, latents, n_dead, self.k_aux, self.aux_coefficient
            )
            flops = aux_k_flops(batch.n_tokens, self.d_in, n_dead, self.k_aux)
        finish_bias_gradient(self)
        facts = {"fallback_rows": fallback / batch.n_tokens}
        return LossTerms(made.losses, penalties, codes, made.x_hat, facts, flops)

    def after_step(self, after: AfterStep) -> None:
        """Count who fired."""
        if after.terms.codes is not None:
            self.dead.update(after.terms.codes)
