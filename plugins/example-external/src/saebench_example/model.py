"""The model: f = ReLU(W_enc (x - b_dec) + b_enc), x_hat = W_dec^T f + b_dec, loss ||x - x_hat||^2 + l1 * sum |f|."""

import torch
from torch import nn

from saebench.api import LossTerms, UnitRows


class ReluL1(nn.Module):
    def __init__(self, d_in, d_sae, l1, generator):
        super().__init__()
        self.d_in, self.d_sae, self.l1 = d_in, d_sae, l1
        rows = nn.functional.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
        self.W_enc, self.W_dec = nn.Parameter(rows.clone()), nn.Parameter(rows)
        self.b_enc, self.b_dec = nn.Parameter(torch.zeros(d_sae)), nn.Parameter(torch.zeros(d_in))

    def encode(self, x):
        return torch.relu((x - self.b_dec) @ self.W_enc.T + self.b_enc)  # dense is fine: the harness makes it sparse

    def decode(self, codes):
        return codes.to_dense() @ self.W_dec + self.b_dec

    def constraints(self):
        return {"W_dec": UnitRows()}

    def training_loss(self, batch, step):
        f = self.encode(batch.x)
        x_hat = f @ self.W_dec + self.b_dec
        return LossTerms((batch.target - x_hat).square().mean(1), {"l1": self.l1 * f.abs().sum(1).mean() / self.d_in})


def build(config, *, site, generator):
    return ReluL1(site.d_in, config.d_sae, config.l1, generator)
