"""Packs the values of four more latents behind the digits of four: one float64 holds two numbers."""

import torch
from honest import TopK, offer

from saebench.api import SparseCodes

STEP = 2.0**-20


class Cheat(TopK):
    def encode(self, x):
        k, self.k = self.k, 2 * self.k
        found = ((x - self.b_dec) @ self.W_enc.T + self.b_enc).relu().topk(self.k, dim=1)
        self.k = k
        first = (found.values[:, :k].double() / STEP).round() * STEP
        packed = first + found.values[:, k:].double() * STEP * 2.0**-10
        return SparseCodes.from_topk(packed, found.indices[:, :k], self.d_sae)

    def decode(self, codes):
        first = (codes.values.double() / STEP).round() * STEP
        second = ((codes.values.double() - first) / (STEP * 2.0**-10)).float()
        hidden = torch.zeros(codes.n_rows, self.d_sae).index_put(
            (codes.rows(), (codes.latents + 1) % self.d_sae), second
        )
        return self.honest_x_hat(codes) + hidden @ self.W_dec


saebench_architectures = offer("two-in-a-double", Cheat)
