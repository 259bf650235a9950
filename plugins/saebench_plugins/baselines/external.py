"""An SAE that another library trained, in the one form that all of them are folded into.

`pre = W_enc (n(x) - b_in) + b_enc`; `codes` are the k largest of `pre`, or those above `threshold`, none under zero;
`x_hat = m(codes @ W_dec + b_dec)`. `n` normalises each token, `m` undoes it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from saebench.api import ActivationBatch, LossTerms, Site, SparseCodes, StepInfo
from saebench.nn import decode, linear_threshold, linear_topk, tied_init, total_variance
from saebench_plugins.baselines.plugin import ExternalConfig

LAYER_NORM_EPS = 1e-5
"""SAELens' own."""


class External(nn.Module):
    """See the module.

    Attributes:
        W_enc, W_dec: `[d_sae, d_in]`. b_enc: `[d_sae]`. b_in, b_dec: `[d_in]`.
        threshold: `[d_sae]` buffer.
    """

    threshold: Tensor
    variance: Tensor

    def __init__(self, config: ExternalConfig, d_in: int, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.d_in, self.d_sae = config, d_in, config.d_sae
        W_enc, W_dec = tied_init(config.d_sae, d_in, generator)
        self.W_enc, self.W_dec = nn.Parameter(W_enc), nn.Parameter(W_dec)
        self.b_enc = nn.Parameter(torch.zeros(config.d_sae))
        self.b_in, self.b_dec = nn.Parameter(torch.zeros(d_in)), nn.Parameter(torch.zeros(d_in))
        self.register_buffer("threshold", torch.zeros(config.d_sae))
        self.register_buffer("variance", torch.tensor(float(d_in)), persistent=False)

    def init_from_data(self, x: Tensor, generator: torch.Generator) -> None:
        """The scale of the loss."""
        self.variance.fill_(total_variance(x) or 1.0)

    def encode(self, x: Tensor) -> SparseCodes:
        """Codes of `x [B, d_in]`; what normalised each token goes to `decode` at their side."""
        side: dict[str, Tensor] = {}
        if self.config.normalise == "layer_norm":
            mean = x.mean(1, keepdim=True)
            deviation = (x - mean).std(1, keepdim=True)
            x, side = (x - mean) / (deviation + LAYER_NORM_EPS), {"mean": mean, "scale": deviation}
        elif self.config.normalise == "constant_norm":
            scale = x.norm(dim=1, keepdim=True) / math.sqrt(self.d_in)
            x, side = x / scale.clamp_min(torch.finfo(x.dtype).tiny), {"scale": scale}
        return replace(self._choose(x - self.b_in), side=side)

    def _choose(self, x: Tensor) -> SparseCodes:
        if self.config.k is None:
            return linear_threshold(x, self.W_enc, self.b_enc, self.threshold)
        if not self.config.groups:
            codes = linear_topk(x, self.W_enc, self.b_enc, self.config.k)
            return replace(codes, values=codes.values.clamp_min(0))
        pre = (x @ self.W_enc.T + self.b_enc).relu()
        values, places = pre.reshape(len(x), self.config.k, self.d_sae // self.config.k).max(2)
        first = torch.arange(0, self.d_sae, self.d_sae // self.config.k, device=x.device)
        return SparseCodes.from_topk(values, first + places, self.d_sae)

    def decode(self, codes: SparseCodes) -> Tensor:
        """`[B, d_in]`."""
        x_hat = decode(codes, self.W_dec, self.b_dec)
        if "scale" in codes.side:
            x_hat = x_hat * codes.side["scale"]
        return x_hat + codes.side["mean"] if "mean" in codes.side else x_hat

    def training_loss(self, batch: ActivationBatch, step: StepInfo) -> LossTerms:
        """FVU a token."""
        codes = self.encode(batch.x)
        x_hat = self.decode(codes)
        return LossTerms((batch.target - x_hat).pow(2).sum(1) / self.variance, {}, codes, x_hat)


def build(config: ExternalConfig, *, site: Site, generator: torch.Generator) -> External:
    """A module to be filled with weights."""
    return External(config, site.d_in, generator)
