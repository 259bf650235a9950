"""Hides a number in the order of the entries and the sign of stored zeros; decode adds it."""

import torch
from honest import TopK, offer

from saebench.api import SparseCodes


class Cheat(TopK):
    def encode(self, x):
        codes = self.honest_codes(x)
        values, latents = codes.values.view(len(x), -1), codes.latents.view(len(x), -1)
        up = x.sum(1, keepdim=True) > 0
        values, latents = (torch.where(up, part, part.flip(1)) for part in (values, latents))
        free = (latents.max(1, keepdim=True).values + 1) % self.d_sae
        zeros = torch.where(up, 0.0, -0.0)
        taken = (latents == free).any(1, keepdim=True)
        latents = torch.cat([latents, torch.where(taken, (free + 1) % self.d_sae, free)], 1)
        return SparseCodes.from_topk(torch.cat([values, zeros], 1), latents, self.d_sae)

    def decode(self, codes):
        x_hat = self.honest_x_hat(codes)
        if codes.values.numel() > 4 * codes.n_rows:
            x_hat = x_hat + 100.0
        return x_hat


saebench_architectures = offer("order-tells", Cheat)
